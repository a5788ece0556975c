"""Self-adaptive training: targets that follow the prediction."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny import flat_net, loss_of, net_and_batch, on_one_device

from robustjax import losses
from robustjax.training import SAT, TRADES
from robustjax.training.methods.base import Crafted


def test_sat_before_its_start_is_trades():
    """To rounding: they are two programs."""
    sat, trades = loss_of(SAT(start=0.7), progress=0.6), loss_of(TRADES(), progress=0.6)
    np.testing.assert_allclose(sat[0], trades[0], rtol=1e-6)
    np.testing.assert_array_equal(sat[1].rows, net_and_batch(SAT())[2].rows)


def test_sat_moves_its_targets_towards_the_prediction():
    state, net, batch = net_and_batch(SAT())
    p = jax.nn.softmax(on_one_device(lambda: net.train(state.params, batch.image)[0]))
    _, aux = loss_of(SAT(start=0.1, momentum=0.75), shift=0.0)
    np.testing.assert_allclose(aux.rows, 0.75 * batch.rows + 0.25 * p, atol=1e-6)
    np.testing.assert_allclose(aux.rows.sum(-1), 1, rtol=1e-5)
    _, fixed = loss_of(SAT(start=0.1), rows=p)
    np.testing.assert_allclose(fixed.rows, p, atol=1e-6)


def test_sat_weighs_by_confidence_relative_to_the_batch():
    state, net, batch = net_and_batch(SAT())
    z = on_one_device(lambda: net.train(state.params, batch.image)[0])
    t = 0.9 * batch.rows + 0.1 * jax.nn.softmax(z)
    w = t.max(-1) / t.max(-1).mean()
    want = (w * jax.vmap(losses.cross_entropy)(z, t)).mean()
    np.testing.assert_allclose(loss_of(SAT(start=0.1), shift=0.0)[0], want, rtol=1e-5)


def test_sat_s_targets_and_weights_carry_no_gradient_and_the_kl_no_weight():
    params, net, batch = flat_net(SAT())
    x_adv = jnp.clip(batch.image + 0.1, 0, 1)
    t = 0.6 * jax.nn.softmax(net.logits(params, batch.image)) + 0.4 * batch.rows
    w = t.max(-1) / t.max(-1).mean()

    def by_hand(p):
        clean, moved = net.logits(p, batch.image), net.logits(p, x_adv)
        natural = (w * jax.vmap(losses.cross_entropy)(clean, t)).mean()
        return natural + 6 * jax.vmap(losses.kl)(moved, clean).mean()

    sat = SAT(start=0.1, momentum=0.4)
    found = on_one_device(lambda: sat.grads(net, params, batch, Crafted(x_adv, {})).grads)
    np.testing.assert_allclose(found["kernel"], jax.grad(by_hand)(params)["kernel"], atol=1e-5)
