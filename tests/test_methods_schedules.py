"""Methods of one step, and methods whose attack changes as training goes on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SIZE, flat_net, on_one_device

from robustjax.attacks import PGD
from robustjax.attacks.starts import Zero
from robustjax.attacks.steps import Unclipped
from robustjax.attacks.stops import Misclassified, Stationary
from robustjax.parallel import AXIS
from robustjax.threats import Linf
from robustjax.training import AWP, METHODS, PGDAT, Curriculum, GradAlign, Natural
from robustjax.training.methods.grad_align import misalignment

BALL = Linf(0.05)


def keys():
    return jax.random.split(jax.random.key(3), SIZE)


def crafted(method, given):
    params, net, batch = given
    return on_one_device(lambda: method.perturb(net, params, batch, keys()))


# ---- one step


def test_fast_at_is_one_step_of_five_quarters_eps_from_a_random_point():
    fast = METHODS["fast-at"]
    given = params, net, batch = flat_net(fast)
    method = dataclasses.replace(fast, attack=dataclasses.replace(fast.attack, threat=BALL))
    starts = jax.vmap(lambda key, x: BALL.sample(jax.random.split(key)[0], x))(keys(), batch.image)

    def ce(x):
        log = jax.nn.log_softmax(net.logits(params, x))
        return -jnp.take_along_axis(log, batch.label[:, None], 1).sum()

    moved = starts + 1.25 * BALL.eps * jnp.sign(jax.grad(ce)(starts))
    want = jax.vmap(BALL.project)(moved, batch.image)
    np.testing.assert_allclose(crafted(method, given).x_adv, want, atol=1e-6)


def test_grad_align_on_a_constant_gradient_is_fgsm_training():
    """Two gradients of a saturated softmax agree, so nothing is added to the cross-entropy."""
    given = params, net, batch = flat_net(GradAlign(), scale=200.0)
    method = GradAlign(PGD(Linf(1e-3), steps=1, start=Zero()), "running", weight=10.0)
    found = crafted(method, given)

    def loss(method):
        return on_one_device(lambda: method.loss(net, params, batch, found))

    value, aux = loss(method)
    assert float(value) == pytest.approx(float(loss(PGDAT())[0]), rel=1e-3)
    assert abs(float(aux.metrics["misalignment"])) < 1e-3


def test_grad_align_is_the_mean_angle_over_images_with_a_gradient():
    params, net, batch = flat_net(GradAlign())
    batch = batch.replace(target=batch.target.at[:5].set(0.0))  # these have no loss at all
    method = GradAlign(PGD(Linf(0.5), steps=1, start=Zero()), "running")
    found = crafted(method, (params, net, batch))

    def gradients(x):
        p = jax.nn.softmax(net.logits(params, x))
        residual = np.asarray(p * batch.target.sum(-1, keepdims=True) - batch.target, np.float64)
        return residual @ np.asarray(params["kernel"], np.float64).T

    g, h = gradients(batch.image)[5:], gradients(found.extra)[5:]
    cos = (g * h).sum(-1) / np.linalg.norm(g, axis=-1) / np.linalg.norm(h, axis=-1)
    assert cos.min() < 0.99

    def loss(weight):
        method = GradAlign(weight=weight)
        return float(on_one_device(lambda: method.loss(net, params, batch, found)[0]))

    assert loss(2.0) - loss(0.0) == pytest.approx(2 * (1 - cos).mean(), rel=1e-3)


def test_grad_align_turns_the_gradient_near_the_image_towards_that_at_it():
    """And not the other way: the one at the image carries no gradient."""
    params, net, batch = flat_net(GradAlign())
    found = crafted(
        GradAlign(PGD(Linf(0.5), steps=1, start=Zero()), "running"), (params, net, batch)
    )

    def term(method):
        return on_one_device(lambda: method.grads(net, params, batch, found).grads["kernel"])

    def misaligned(p, fixed):
        def gradients(p, x):
            residual = jax.nn.softmax(net.logits(p, x)) - batch.target
            return residual @ p["kernel"].T

        g, h = gradients(fixed, batch.image), gradients(p, found.extra)
        lengths = jnp.linalg.norm(g, axis=-1) * jnp.linalg.norm(h, axis=-1)
        return (1 - (g * h).sum(-1) / lengths).mean()

    want = jax.grad(misaligned)(params, params)["kernel"]
    got = jax.jit(lambda: term(GradAlign(weight=1.0)) - term(GradAlign(weight=0.0)))()
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(want).max() > 1e-3


def test_no_gradient_is_no_angle_and_no_nan():
    zero, one = jnp.zeros((2, 2, 1)), jnp.ones((2, 2, 1))
    for pair in ((zero, one), (one, zero), (zero, zero)):
        assert misalignment(*pair) == (0, False)
        assert jnp.isfinite(jax.grad(lambda h, g=pair[0]: misalignment(g, h)[0])(pair[1])).all()


# ---- the curriculum


@pytest.mark.parametrize(
    ("k", "size", "want"),
    [
        (0, 8, [0] * 8),
        (1, 8, [0] * 4 + [1] * 4),
        (2, 8, [0, 0, 1, 1, 2, 2, 2, 2]),
        (3, 8, [0, 0, 1, 1, 2, 2, 3, 3]),
        (7, 4, [0, 1, 2, 3]),
    ],
)
def test_a_batch_is_cut_into_slices_and_the_last_takes_the_rest(k, size, want):
    assert Curriculum(strength=k).steps(jnp.arange(size), size).tolist() == want


def test_slices_are_of_the_whole_batch():
    method, given = Curriculum(PGD(BALL), "running", strength=3), flat_net(Curriculum())
    params, net, batch = given
    halves = jax.tree.map(lambda a: a.reshape(2, -1, *a.shape[1:]), (batch, keys()))
    found = jax.vmap(lambda b, k: method.perturb(net, params, b, k).x_adv, axis_name=AXIS)(*halves)
    np.testing.assert_array_equal(found.reshape(batch.image.shape), crafted(method, given).x_adv)


def test_without_strength_it_is_natural_training_and_slice_zero_always_is():
    given = flat_net(Curriculum())
    image = given[2].image
    np.testing.assert_array_equal(crafted(Curriculum(PGD(BALL)), given).x_adv, image)
    found = crafted(Curriculum(PGD(BALL), strength=3), given).x_adv
    clean = (found == image).all((1, 2, 3))
    assert clean.tolist() == [True] * (SIZE // 4) + [False] * (3 * SIZE // 4)


def test_a_slice_of_one_step_is_fgsm_from_a_random_start():
    """Steps of 2 eps and more lead to a corner, or to the box, from anywhere."""
    given = _, _, batch = flat_net(Curriculum())
    found = np.asarray(crafted(Curriculum(PGD(BALL), strength=1), given).x_adv)[SIZE // 2 :]
    x = np.asarray(batch.image)[SIZE // 2 :]
    low, high = np.maximum(x - BALL.eps, 0), np.minimum(x + BALL.eps, 1)
    assert np.minimum(np.abs(found - low), np.abs(found - high)).max() < 1e-6


def test_steps_of_a_slice_are_of_twice_eps_over_their_number_and_up_to_ten_over_it_longer():
    """Where nothing clips, all steps together go 2 eps u, u ~ U(1, 10 / j), one u an image."""
    params, net, batch = flat_net(Curriculum())
    batch = batch.replace(image=0.3 + 0.4 * batch.image)
    attack = PGD(Linf(0.002), start=Zero(), rule=Unclipped())
    found = crafted(Curriculum(attack, strength=3), (params, net, batch)).x_adv
    far = np.abs(found - batch.image).max((1, 2, 3)).reshape(4, -1) / 0.004
    for j in (1, 2, 3):
        assert (far[j] >= 1 - 1e-4).all() and (far[j] <= 10 / j + 1e-4).all()
        assert far[j].max() > 0.5 * (1 + 10 / j) and len(np.unique(far[j])) == SIZE // 4


def test_the_curriculum_goes_on_when_the_score_has_not_risen_for_long():
    method = Curriculum(patience=2, strongest=2)
    scores = [0.5, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0]
    want = [(0, "continue")] * 3 + [(1, "rollback")] + [(1, "continue")] * 2
    want += [(2, "rollback")] + [(2, "continue")] * 3
    for n, (strength, action) in enumerate(want, 1):
        found = method.control(scores[:n])
        assert (found[0].strength, found[1]) == (strength, action), n
    assert AWP(method).control(scores[:4])[0].inner.strength == 1
    assert jax.tree.structure(method.control(scores)[0]) == jax.tree.structure(method)


# ---- the guard


def test_the_guard_stops_after_a_fall_in_one_epoch():
    guarded = METHODS["fast-at"]
    assert guarded.guard == 0.2
    assert guarded.control([])[1] == guarded.control([0.4])[1] == "continue"
    assert guarded.control([0.4, 0.25, 0.1])[1] == "continue"
    assert guarded.control([0.4, 0.1]) == (guarded, "stop")
    assert PGDAT().control([1.0, 0.0])[1] == Natural().control([1.0, 0.0])[1] == "continue"


# ---- stop rules over training


@pytest.mark.parametrize(
    ("name", "times", "taus"),
    [
        ("fat", (50 / 120, 51 / 120, 90 / 120, 91 / 120), (0, 1, 1, 2)),
        ("fat-trades", (30 / 85, 31 / 85, 51 / 85, 71 / 85), (0, 1, 2, 3)),
        ("fat-mart", (20 / 90, 21 / 90, 61 / 90, 81 / 90), (0, 1, 3, 4)),
    ],
)
def test_friendly_training_follows_its_paper_s_epochs(name, times, taus):
    attack = METHODS[name].attack
    assert [attack.at(jnp.float32(t)).stop.tau for t in times] == list(taus)


def test_crafting_takes_the_stop_rule_of_its_time():
    """Early in training friendly images are hardly wrong, late they are PGD's; so is dynamic AT's
    threshold there.
    """
    params, net, batch = flat_net(PGDAT())
    attack = PGD(BALL, steps=6)

    def at(progress, stop):
        method = PGDAT(dataclasses.replace(attack, stop=stop))
        given = params, net.replace(progress=jnp.float32(progress)), batch
        return np.asarray(crafted(method, given).x_adv)

    plain = crafted(PGDAT(attack), (params, net, batch)).x_adv
    friendly = Misclassified(0, (0.5,) * 6)
    assert (at(0.4, friendly) != plain).any()
    np.testing.assert_array_equal(at(0.6, friendly), plain)
    dynamic = Stationary(1e3, 0.5)
    assert (at(0.4, dynamic) != plain).any()
    np.testing.assert_allclose(at(0.6, dynamic), plain, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: GradAlign(weight=-1.0), "weight"),
        (lambda: PGDAT(guard=2.0), "guard"),
        (lambda: Curriculum(strength=-1), "strength"),
        (lambda: Curriculum(strongest=-1), "strongest"),
        (lambda: Curriculum(patience=0), "patience"),
    ],
)
def test_bad_numbers_are_refused(make, field):
    with pytest.raises(ValueError, match=field):
        make()
