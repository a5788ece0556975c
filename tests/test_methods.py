"""What each method is, checked on cases with a known answer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import Watched, flat_net, net_and_batch

from robustjax import losses
from robustjax.attacks import BIM, PGD, Restarts
from robustjax.attacks.starts import Gaussian
from robustjax.parallel import AXIS
from robustjax.threats import L2
from robustjax.training import AWP, MART, PGDAT, SAT, SCORE, TRADES, AVmixup, Natural
from robustjax.training.methods.base import Crafted


def on_one_device(function):
    """Run under the device axis, as a training step does."""
    return jax.tree.map(
        lambda a: a[0], jax.vmap(lambda _: function(), axis_name=AXIS)(jnp.zeros(1))
    )


def loss_of(method, progress=0.5, shift=0.1, rows=None):
    state, net, batch = net_and_batch(SAT())
    net = net.replace(progress=jnp.float32(progress))
    batch = batch if rows is None else batch.replace(rows=rows)
    crafted = Crafted(jnp.clip(batch.image + shift, 0, 1), net.stats)
    return on_one_device(lambda: method.loss(net, state.params, batch, crafted))


def test_trades_without_beta_is_natural_training():
    np.testing.assert_allclose(
        loss_of(TRADES(beta=0.0))[0], loss_of(Natural(), shift=0.0)[0], rtol=1e-6
    )


def test_trades_on_clean_images_is_cross_entropy():
    np.testing.assert_allclose(
        loss_of(TRADES(), shift=0.0)[0], loss_of(Natural(), shift=0.0)[0], rtol=1e-5
    )


@pytest.mark.parametrize("method", [TRADES, SAT])
def test_the_kl_is_climbed_whatever_loss_the_attack_names(method):
    state, net, batch = net_and_batch(SAT())

    def images(**extra):
        keys = jax.random.split(jax.random.key(0), len(batch.label))
        attack = PGD(L2(0.3), steps=2, start=Gaussian(), **extra)
        made = method(attack=attack)
        return on_one_device(lambda: made.perturb(net, state.params, batch, keys)).x_adv

    plain = images()
    clean = net.logits(state.params, batch.image)
    kl = jax.vmap(losses.kl)(net.logits(state.params, plain), clean)
    nearby = jax.vmap(losses.kl)(net.logits(state.params, batch.image + 1e-3), clean)
    assert kl.mean() > 10 * nearby.mean() and kl.min() > 0
    for extra in ({"loss": losses.kl}, {"label": "least_likely"}, {"targeted": True}):
        np.testing.assert_array_equal(images(**extra), plain)


@pytest.mark.parametrize("commits", ["both", "adversarial"])
def test_trades_commits_clean_then_adversarial_or_the_latter_alone(commits):
    state, net, batch = net_and_batch(TRADES())
    x_adv = jnp.clip(batch.image + 0.1, 0, 1)

    def by_hand():
        _, stats = net.train(state.params, batch.image)
        return net.train(state.params, x_adv, stats if commits == "both" else net.stats)[1]

    def loss(method):
        crafted = Crafted(x_adv, net.stats)
        return on_one_device(lambda: method.loss(net, state.params, batch, crafted))

    value, aux = loss(TRADES(commits=commits))
    for a, b in zip(*map(jax.tree.leaves, (on_one_device(by_hand), aux.stats)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert value == loss(TRADES())[0]


@pytest.mark.parametrize("method", [TRADES, SCORE])
@pytest.mark.parametrize("bn", ["running", "batch", "commit"])
def test_pairs_craft_in_their_mode_and_the_reference_commits_nothing(bn, method):
    state, net, batch = net_and_batch(TRADES())
    watched = Watched(net.stats, net.progress, net.module, modes=[])

    def perturb(keys):
        return method(bn=bn).perturb(watched, state.params, batch, keys)

    jax.eval_shape(jax.vmap(perturb, axis_name=AXIS), jax.random.split(jax.random.key(0), (1, 32)))
    reference, *climbing = watched.modes
    assert reference == ("running" if bn == "running" else "batch")
    assert set(climbing) == {bn}


def test_leaving_a_one_hot_target_is_the_attack_of_adversarial_training():
    params, net, batch = flat_net(TRADES())
    attack = PGD(L2(0.3), steps=2, start=Gaussian())

    def perturb(method):
        keys = jax.random.split(jax.random.key(0), len(batch.label))
        return on_one_device(lambda: method.perturb(net, params, batch, keys)).x_adv

    label = perturb(PGDAT(attack))
    np.testing.assert_allclose(perturb(TRADES(attack=attack, aim="target")), label, atol=1e-5)
    assert np.abs(perturb(TRADES(attack=attack)) - label).max() > 1e-2


@pytest.mark.parametrize(
    ("field", "value"), [("bn", "frozen"), ("commits", "clean"), ("aim", "label")]
)
def test_trades_options_are_checked(field, value):
    with pytest.raises(ValueError, match=f"{field} must be one of .*, got '{value}'"):
        TRADES(**{field: value})


def test_sat_before_its_start_is_trades_bit_for_bit():
    sat, trades = loss_of(SAT(start=0.7), progress=0.6), loss_of(TRADES(), progress=0.6)
    assert sat[0] == trades[0]
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


def gradients(method):
    state, net, batch = net_and_batch(PGDAT())
    crafted = Crafted(jnp.clip(batch.image + 0.05, 0, 1), net.stats)
    g = on_one_device(lambda: method.grads(net, state.params, batch, crafted))
    return state.params, g


def test_awp_with_gamma_zero_is_the_inner_method():
    _, inner = gradients(PGDAT())
    params, wrapped = gradients(AWP(PGDAT(), gamma=0.0))
    for a, b in zip(jax.tree.leaves(inner.grads), jax.tree.leaves(wrapped.grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(wrapped.anchor), strict=True):
        np.testing.assert_allclose(a, b)


def test_awp_moves_kernels_by_gamma_and_takes_the_gradient_there():
    params, inner = gradients(PGDAT())
    _, wrapped = gradients(AWP(PGDAT(), gamma=0.02))
    for w, g, v in zip(*map(jax.tree.leaves, (params, inner.grads, wrapped.anchor)), strict=True):
        if w.ndim > 1:
            np.testing.assert_allclose(jnp.linalg.norm(v - w), 0.02 * jnp.linalg.norm(w), rtol=1e-3)
            np.testing.assert_allclose(
                v - w, 0.02 * jnp.linalg.norm(w) * g / jnp.linalg.norm(g), atol=1e-5
            )
        else:
            np.testing.assert_array_equal(v, w)
    _, net, batch = net_and_batch(PGDAT())
    crafted = Crafted(jnp.clip(batch.image + 0.05, 0, 1), net.stats)
    there = on_one_device(lambda: PGDAT().grads(net, wrapped.anchor, batch, crafted))
    for a, b in zip(jax.tree.leaves(there.grads), jax.tree.leaves(wrapped.grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("start", [0.5, 0.9])
def test_awp_waits_for_its_start(start):
    """The step that ends there is the last one before."""
    params, wrapped = gradients(AWP(PGDAT(), gamma=0.02, start=start))
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(wrapped.anchor), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: TRADES(-1.0), "beta"),
        (lambda: SAT(start=2.0), "start"),
        (lambda: AWP(gamma=-1.0), "gamma"),
    ],
)
def test_bad_numbers_are_refused(make, field):
    with pytest.raises(ValueError, match=field):
        make()


@pytest.mark.parametrize("loss", [losses.kl, losses.squared_error, losses.targeted_dlr])
def test_pgd_at_refuses_a_loss_without_the_label(loss):
    with pytest.raises(ValueError, match=f"the loss {loss.__name__} needs a target"):
        PGDAT(PGD(loss=loss))


def test_pgd_at_refuses_an_attack_on_no_target():
    with pytest.raises(ValueError, match="needs a target"):
        PGDAT(PGD(targeted=True))


@pytest.mark.parametrize("method", [TRADES, SAT])
def test_an_attack_from_where_the_kl_is_flat_is_refused(method):
    with pytest.raises(ValueError, match="no gradient at the clean image"):
        method(attack=BIM())


@pytest.mark.parametrize("make", [PGDAT, lambda a: TRADES(attack=a), lambda a: SAT(attack=a)])
@pytest.mark.parametrize("attack", [Restarts(PGD()), PGD, "pgd-10"])
def test_an_attack_of_another_kind_is_refused(make, attack):
    with pytest.raises(ValueError, match="attack must be a PGD, got"):
        make(attack)


@pytest.mark.parametrize("method", [PGDAT, MART, AVmixup])
def test_a_mode_of_batch_normalisation_that_is_none_is_refused(method):
    with pytest.raises(ValueError, match="bn must be one of running, batch, commit, got 'frozen'"):
        method(bn="frozen")


def test_awp_wraps_methods_only():
    with pytest.raises(ValueError, match="inner must be a Method, got PGD"):
        AWP(PGD())


def test_methods_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TRADES().beta = 1.0
