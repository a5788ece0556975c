"""UAT against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SIZE, cross_entropies, divergences, flat_net, linear, on_one_device

from robustjax import losses
from robustjax.training import TRADES, UAT
from robustjax.training.methods.base import Crafted


@pytest.mark.parametrize("fixed", [False, True])
def test_uat_supervises_labelled_examples_or_all(fixed):
    """Half of the examples are extra; with all of them extra only the KL is left."""
    method = UAT(weight=3.0, fixed=fixed)
    params, net, batch = flat_net(method)
    x_adv = jnp.clip(batch.image + 0.1, 0, 1)

    def loss(source):
        given = batch.replace(source=jnp.asarray(source))
        crafted = Crafted(x_adv, net.stats)
        return float(on_one_device(lambda: method.loss(net, params, given, crafted)[0]))

    clean, moved = (np.asarray(net.logits(params, x), np.float64) for x in (batch.image, x_adv))
    ce, kl = cross_entropies(moved, np.asarray(batch.label)), divergences(clean, moved).mean()
    extra = np.arange(SIZE) % 2
    want = ce.mean() if fixed else ce[extra == 0].mean()
    assert loss(extra) == pytest.approx(want + 3 * kl, rel=1e-5)
    none = ce.mean() if fixed else 0.0
    assert loss(np.ones(SIZE, int)) == pytest.approx(none + 3 * kl, rel=1e-5)


def test_uat_is_its_formula():
    loss, clean, moved, label = linear(UAT(weight=2.0))
    want = cross_entropies(moved, label) + 2 * divergences(clean, moved)
    assert loss == pytest.approx(want.mean(), rel=1e-5)


def test_uat_s_target_has_no_gradient_as_that_of_trades_has():
    """What the KL's clean side contributes, by differences in beta."""
    params, net, batch = flat_net(UAT())
    x_adv = jnp.clip(batch.image + 0.1, 0, 1)

    def kl(make):
        def loss(p, weight):
            return make(weight).loss(net, p, batch, Crafted(x_adv, {}))[0]

        with_, without = (
            on_one_device(lambda w=w: jax.grad(loss)(params, w)["kernel"]) for w in (1.0, 0.0)
        )
        return with_ - without

    def one_sided(p):
        clean, moved = net.logits(params, batch.image), net.logits(p, x_adv)
        return jax.vmap(losses.kl)(moved, clean).mean()

    want = jax.grad(one_sided)(params)["kernel"]
    np.testing.assert_allclose(kl(lambda w: UAT(weight=w)), want, atol=1e-6)
    assert np.abs(kl(lambda w: TRADES(beta=w)) - want).max() > 1e-3
