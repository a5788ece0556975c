"""YOPO and its TRADES: rounds of steps through the first layer alone."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny import flat_net, keys, net_and_batch, on_one_device

from robustjax import losses
from robustjax.attacks.starts import Gaussian
from robustjax.threats import Linf
from robustjax.training import PGDAT, TRADES, YOPO, TradesYOPO
from robustjax.training.methods.base import Crafted

BALL = Linf(0.05)


def gradients(method, found=None):
    state, net, batch = net_and_batch(PGDAT())
    found = Crafted(jnp.clip(batch.image + 0.02, 0, 1), net.stats) if found is None else found
    run = jax.jit(lambda: on_one_device(lambda: method.grads(net, state.params, batch, found)))
    return run()


def test_a_round_without_steps_is_plain_backpropagation():
    """'both' gives the first layer its gradient twice, and no other layer."""
    plain = gradients(PGDAT())
    for first_layer, factor in (("hamiltonian", 1), ("both", 2)):
        found = gradients(YOPO(BALL, rounds=1, steps=0, first_layer=first_layer))
        for path, want in jax.tree_util.tree_leaves_with_path(plain.grads):
            got = dict(jax.tree_util.tree_leaves_with_path(found.grads))[path]
            times = factor if "stem" in jax.tree_util.keystr(path) else 1
            np.testing.assert_allclose(got, times * want, atol=1e-5)
        for a, b in zip(*(jax.tree.leaves(g.aux.stats) for g in (found, plain)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_rounds_sum_their_passes_and_the_first_layer_s_gradient_where_each_has_gone():
    """With one step a round that is a step of projected gradient ascent."""
    state, net, batch = net_and_batch(PGDAT())
    method = YOPO(BALL, rounds=2, steps=1, rel_step=0.3)
    x = jnp.clip(batch.image + 0.02 * jnp.sin(1e3 * batch.image), 0, 1)

    def layer(p, x):
        return net.forward(p, x, method="stem_output")[0]

    def loss(p, x, stats):
        here = net.replace(stats=stats)
        return PGDAT().loss(here, p, batch, Crafted(x, stats))

    def by_hand():
        at, stats, total = x, net.stats, jax.tree.map(jnp.zeros_like, state.params)
        for _ in range(2):
            full, aux = jax.grad(loss, has_aux=True)(state.params, at, stats)
            hidden = layer(state.params, at)

            def rest(h, stats=stats):
                logits, _ = net.forward(state.params, h, "commit", stats, method="rest")
                return jax.vmap(losses.cross_entropy)(logits, batch.label).mean()

            costate, slope = jax.grad(rest)(hidden), jax.grad(loss, 1, has_aux=True)
            step = 0.3 * BALL.eps * jnp.sign(slope(state.params, at, stats)[0])
            at, stats = jax.vmap(BALL.project)(at + step, batch.image), aux.stats
            (more,) = jax.vjp(lambda p, at=at: layer(p, at), state.params)[1](costate)
            total = jax.tree.map(lambda *g: sum(g), total, full, more)
        return total, stats

    grads, stats = jax.jit(lambda: on_one_device(by_hand))()
    found = gradients(method, Crafted(x, net.stats))
    for got, want in ((found.grads, grads), (found.aux.stats, stats)):
        for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * max(1, np.abs(b).max()))


def test_trades_through_one_layer_has_the_loss_of_trades():
    params, net, batch = flat_net(PGDAT())
    found = Crafted(jnp.clip(batch.image + 0.1, 0, 1), net.stats)
    ours, theirs = (
        on_one_device(lambda m=m: m.loss(net, params, batch, found)[0])
        for m in (TradesYOPO(beta=3.0), TRADES(beta=3.0))
    )
    assert ours == theirs


def test_rounds_of_one_step_are_those_of_projected_gradient_ascent():
    """With a new co-state before every step the Hamiltonian's gradient is the loss's."""
    state, net, batch = net_and_batch(PGDAT())
    method = TradesYOPO(threat=BALL, rounds=3, steps=1, rel_step=0.4)

    @jax.jit
    def both():
        found = on_one_device(lambda: method.perturb(net, state.params, batch, keys())).x_adv
        clean = net.logits(state.params, batch.image)
        x = jax.vmap(Gaussian(), (0, 0, None))(keys(), batch.image, BALL)
        for _ in range(3):
            gradient, _, _ = on_one_device(
                lambda x=x: net.image_gradient(
                    state.params, x, lambda z: jax.vmap(losses.kl)(z, clean)
                )
            )
            x = jax.vmap(BALL.step, (0, 0, None, 0))(x, gradient, 0.4 * BALL.eps, batch.image)
        return found, x

    found, by_hand = both()
    assert np.mean(np.abs(found - by_hand) < 1e-6) > 0.99
    assert np.abs(found - batch.image).max() > 0.3 * BALL.eps


def test_more_steps_move_further_on_one_co_state():
    state, net, batch = net_and_batch(PGDAT())

    @jax.jit
    def moved(steps):
        method = TradesYOPO(threat=BALL, rounds=1, steps=steps, rel_step=0.2)
        found = on_one_device(lambda: method.perturb(net, state.params, batch, keys()))
        return jnp.abs(found.x_adv - batch.image).mean()

    assert moved(1) < 0.5 * moved(4) < 0.5 * BALL.eps
