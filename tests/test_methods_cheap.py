"""Feature scattering, Free and YOPO: attacks that are neither PGD nor cost as much."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SIZE, flat_net, fresh, net_and_batch, on_one_device

from robustjax import losses
from robustjax.attacks.starts import Gaussian
from robustjax.threats import Linf
from robustjax.training import PGDAT, TRADES, YOPO, FeatureScattering, Free, Natural, TradesYOPO
from robustjax.training.methods.base import Crafted
from robustjax.training.methods.feature_scattering import scattering, sinkhorn

BALL = Linf(0.05)


def keys():
    return jax.random.split(jax.random.key(3), SIZE)


# ---- feature scattering


@pytest.fixture(scope="module")
def cost():
    a, b = jax.random.normal(jax.random.key(0), (2, 8, 3))
    return scattering(a, b)


def test_the_plan_has_uniform_marginals(cost):
    plan = sinkhorn(cost, 0.1, 200)
    np.testing.assert_allclose(plan.sum(0), 1 / 8, rtol=1e-5)
    np.testing.assert_allclose(plan.sum(1), 1 / 8, rtol=1e-3)
    assert (plan > 0).all()


def test_permuting_the_batch_permutes_the_plan(cost):
    order = np.random.default_rng(0).permutation(8)
    plan = sinkhorn(cost, 0.1, 100)
    np.testing.assert_allclose(sinkhorn(cost[order], 0.1, 100), plan[order], rtol=1e-4)
    np.testing.assert_allclose(sinkhorn(cost[:, order], 0.1, 100), plan[:, order], rtol=1e-4)


def test_a_cold_plan_is_the_cheapest_assignment():
    a = jax.random.normal(jax.random.key(0), (6, 4))
    order = np.random.default_rng(0).permutation(6)
    plan = sinkhorn(scattering(a, a[order]), 0.01, 100)
    np.testing.assert_allclose(plan, np.eye(6)[:, order] / 6, atol=1e-4)


def test_scattering_moves_outputs_further_than_chance_and_reads_no_label():
    params, net, batch = flat_net(FeatureScattering())
    method = FeatureScattering(BALL)

    def found(batch):
        return on_one_device(lambda: method.perturb(net, params, batch, keys())).x_adv

    x_adv = found(batch)
    np.testing.assert_array_equal(x_adv, found(batch.replace(label=(batch.label + 1) % 4)))
    start = jax.vmap(BALL.sample)(keys(), batch.image)

    def far(images):
        clean, moved = (net.logits(params, x) for x in (batch.image, images))
        transport = scattering(clean, moved)
        return float((sinkhorn(transport, 0.01, 100) * transport).sum())

    assert far(x_adv) > 3 * far(start)


def test_scattering_is_one_step_along_the_gradient_of_the_transport_plan_included():
    params, net, batch = flat_net(FeatureScattering())
    method = FeatureScattering(BALL, regularisation=0.5, iterations=20)
    start = jax.vmap(BALL.sample)(keys(), batch.image)

    def distance(images):
        cost = scattering(*(net.logits(params, x) for x in (batch.image, images)))
        return (sinkhorn(cost, 0.5, 20) * cost).sum()

    @jax.jit
    def both():
        found = on_one_device(lambda: method.perturb(net, params, batch, keys())).x_adv
        moved = start + BALL.eps * jnp.sign(jax.grad(distance)(start))
        return found, jax.vmap(BALL.project)(moved, batch.image)

    found, want = both()
    assert np.mean(np.abs(found - want) < 1e-6) > 0.999


def test_half_the_label_is_smoothed_away_whatever_the_recipe_says():
    params, net, batch = flat_net(FeatureScattering())
    found = Crafted(batch.image, net.stats)
    loss, _ = on_one_device(lambda: FeatureScattering().loss(net, params, batch, found))
    target = np.where(np.asarray(batch.target) == 1, 0.5, 0.5 / 3)
    want = -(target * np.asarray(jax.nn.log_softmax(net.logits(params, batch.image)))).sum(-1)
    assert float(loss) == pytest.approx(want.mean(), rel=1e-5)


# ---- Free


def updated(method, visits):
    """The states after visits of one batch by descent whose rate is the progress."""
    params, net, batch = flat_net(method)
    state = fresh(method).replace(params=params, stats={}, slot=batch.slot)

    def descend(state, grads, anchor, progress):
        moved = jax.tree.map(lambda w, g: w - progress * g, anchor, grads)
        return state.replace(params=moved)

    @jax.jit
    def visit(state):
        given = batch.replace(slot=state.slot)
        new, aux = on_one_device(lambda: method.update(net, descend, state, given, keys()))
        return new.replace(slot=aux.slot)

    states = [state]
    for _ in range(visits):
        states.append(visit(states[-1]))
    return states, net, batch


def test_the_first_update_without_a_replay_is_natural_training():
    free, natural = (updated(method, 1)[0][-1].params for method in (Free(replays=1), Natural()))
    np.testing.assert_allclose(free["kernel"], natural["kernel"], atol=1e-6)


def test_a_replay_moves_weights_and_images_by_one_gradient_and_the_rate_counts_it():
    states, net, batch = updated(Free(BALL, replays=2), 3)
    params, delta = states[0].params, jnp.zeros_like(batch.image)

    def loss(p, x):
        return jax.vmap(losses.cross_entropy)(net.logits(p, x), batch.label).mean()

    for progress in (0.25, 0.5):  # half of training is done when this step, the first, ends
        g, h = jax.grad(loss, (0, 1))(params, batch.image + delta)
        params = jax.tree.map(lambda w, g, r=progress: w - r * g, params, g)
        moved = batch.image + delta + BALL.eps * jnp.sign(h)
        delta = jax.vmap(BALL.project)(moved, batch.image) - batch.image
    np.testing.assert_allclose(states[1].params["kernel"], params["kernel"], atol=1e-5)
    np.testing.assert_allclose(states[1].slot, delta, atol=1e-6)
    for state in states[1:]:
        assert 0.9 * BALL.eps < np.abs(state.slot).max() <= BALL.eps * (1 + 1e-5)
    assert (states[3].slot != states[2].slot).any()


# ---- YOPO


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeatureScattering(smoothing=2.0), "smoothing"),
        (lambda: FeatureScattering(iterations=0), "iterations"),
        (lambda: YOPO(rounds=0), "rounds"),
        (
            lambda: YOPO(first_layer="none"),
            "first_layer must be one of both, hamiltonian, got 'none'",
        ),
        (lambda: TradesYOPO(beta=-1.0), "beta"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
