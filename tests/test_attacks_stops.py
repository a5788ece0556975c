"""Stop rules: when a gradient attack leaves an image where it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import PGD
from robustjax.attacks.starts import Uniform, Zero
from robustjax.attacks.steps import Momentum, Unclipped
from robustjax.attacks.stops import After, Look, Misclassified, Never, Stationary, fosc
from robustjax.attacks.transforms import DiverseInput
from robustjax.evaluation import evaluate
from robustjax.threats import L2, Linf

SHAPE, CLASSES, N = (4, 4, 1), 3, 24
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.normal(size=(16, CLASSES)), jnp.float32)
X = jnp.asarray(RNG.uniform(0.2, 0.8, (N, *SHAPE)), jnp.float32)


def logits_fn(x):
    return jnp.tanh(4 * (x.reshape(-1) - 0.5)) @ W


Y = jax.vmap(logits_fn)(X).argmax(-1)
ATTACK = PGD(Linf(0.09), steps=8, start=Zero(), rel_step=1.0)


@jax.jit
def run(attack):
    keys = jax.vmap(jax.random.key)(jnp.arange(N))
    return jax.vmap(lambda k, x, y: attack(logits_fn, k, x, y))(keys, X, Y)


def steps(attack):
    """All iterates, the start first."""
    return [run(dataclasses.replace(attack, steps=n, step_size=attack.size)) for n in range(9)]


def wrong(x):
    return np.asarray(jax.vmap(logits_fn)(x).argmax(-1) != Y)


PATH = steps(ATTACK)
FIRST = np.argmax([wrong(x) for x in PATH], 0)
"""The first iterate that is misclassified, 0 for none: all are correct at the beginning."""


def with_stop(stop, **changes):
    return run(dataclasses.replace(ATTACK, stop=stop, **changes))


def test_the_path_leaves_the_class_at_various_times():
    assert not wrong(PATH[0]).any() and len(np.unique(FIRST)) > 3


@pytest.mark.parametrize("tau", [0, 1, 2])
def test_friendly_images_are_tau_steps_beyond_the_first_wrong_one(tau):
    found = with_stop(Misclassified(tau))
    for i in range(N):
        number = min(FIRST[i] + tau, 8) if FIRST[i] else 8
        np.testing.assert_array_equal(found[i], PATH[number][i])


def test_without_tolerance_an_image_is_correct_or_the_one_before_it_was():
    found = with_stop(Misclassified(0))
    gone = wrong(found)
    assert gone.any() and not gone.all()
    before = [PATH[max(n - 1, 0)][i] for i, n in enumerate(FIRST)]
    assert not wrong(jnp.stack(before))[gone].any()


def test_with_a_tolerance_of_all_steps_it_is_pgd():
    np.testing.assert_array_equal(with_stop(Misclassified(8)), run(ATTACK))


def test_a_memory_halts_too():
    """Momentum gathered while an image waits would be another image's after it."""
    rule = Momentum()
    path = steps(dataclasses.replace(ATTACK, rule=rule))
    first = np.argmax([wrong(x) for x in path], 0)
    found = with_stop(Misclassified(0), rule=rule)
    for i in range(N):
        np.testing.assert_array_equal(found[i], path[first[i] or 8][i])


@pytest.mark.parametrize(
    ("progress", "tau"), [(0.01, 1), (0.4, 1), (0.41, 2), (0.75, 2), (0.76, 3), (1.0, 3)]
)
def test_tau_grows_over_training(progress, tau):
    rule = Misclassified(1, (0.4, 0.75)).at(jnp.float32(progress))
    assert rule.tau == tau and rule.later == ()
    assert PGD(stop=Misclassified(1, (0.4, 0.75))).at(jnp.float32(progress)).stop.tau == tau


def test_the_stationary_threshold_falls_to_zero():
    found = [float(Stationary(0.5, 0.8).at(jnp.float32(t)).c) for t in (0.2, 0.4, 0.8, 1.0)]
    np.testing.assert_allclose(found, [0.375, 0.25, 0, 0], atol=1e-7)


def sight(x_adv, x, gradient, threat):
    return Look(0, None, gradient, x_adv, x, 0, threat)


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.3)])
def test_fosc_is_what_a_linear_loss_can_still_gain(threat):
    x, g = X[0], jnp.sin(1e3 * X[1])
    best = x + threat.eps * threat.steepest(g)
    assert float(fosc(sight(best, x, g, threat))) == pytest.approx(0, abs=1e-6)
    at_x = float(fosc(sight(x, x, g, threat)))
    assert at_x == pytest.approx(float(jnp.sum(g * (best - x))), rel=1e-6)
    half = float(fosc(sight((x + best) / 2, x, g, threat)))
    assert half == pytest.approx(at_x / 2, rel=1e-4)


def test_without_a_threshold_dynamic_at_is_pgd_up_to_fixed_points():
    np.testing.assert_allclose(with_stop(Stationary(0.0)), run(ATTACK), atol=1e-6)


def test_a_large_threshold_halts_at_once_and_one_between_on_the_way():
    np.testing.assert_array_equal(with_stop(Stationary(1e3)), X)
    found = with_stop(Stationary(0.3))
    number = [min(n for n in range(9) if (found[i] == PATH[n][i]).all()) for i in range(N)]
    assert len(set(number)) > 2


def test_after_gives_each_image_its_own_number_of_steps():
    keys = jax.vmap(jax.random.key)(jnp.arange(N))
    number = jnp.arange(N) % 9

    def one(key, x, y, n):
        return dataclasses.replace(ATTACK, stop=After(n))(logits_fn, key, x, y)

    found = jax.jit(jax.vmap(one))(keys, X, Y, number)
    for i in range(N):
        np.testing.assert_array_equal(found[i], PATH[int(number[i])][i])


def test_new_numbers_compile_nothing():
    before = run._cache_size()
    for tau in (3, 4, 5):
        with_stop(Misclassified(tau))
    assert run._cache_size() <= before + 1


def test_unclipped_steps_leave_the_ball_and_not_the_box():
    """The N-FGSM of its paper, by hand: x + eta + eps sign(g), eta from twice the ball."""
    eps = 0.3
    attack = PGD(Linf(eps), steps=1, rel_step=1.0, start=Uniform(2.0), rule=Unclipped())
    found = run(attack)
    start = run(dataclasses.replace(attack, steps=0, step_size=eps))
    far = np.abs(start - X).max((1, 2, 3))
    assert (far > eps).any() and (far <= 2 * eps).all()

    def ce(x, y):
        return -jax.nn.log_softmax(logits_fn(x))[y]

    g = jax.vmap(jax.grad(ce))(start, Y)
    np.testing.assert_allclose(found, np.clip(start + eps * np.sign(g), 0, 1), atol=1e-6)
    assert np.abs(found - X).max() > eps and found.min() >= 0 and found.max() <= 1


def test_n_fgsm_clipped_from_one_ball_is_fgsm_rs():
    """With k = 1, alpha = 1.25 eps and the clip it is Fast AT's attack, given the same key."""
    n = PGD(Linf(0.1), steps=1, rel_step=1.25, start=Uniform(1.0), rule=Unclipped())
    fast = PGD(Linf(0.1), steps=1, rel_step=1.25)
    clipped = jax.vmap(Linf(0.1).project)(run(n), X)
    np.testing.assert_allclose(clipped, run(fast), atol=1e-6)


def test_what_has_no_single_output_has_no_stop_rule():
    with pytest.raises(ValueError, match="leave transforms empty"):
        PGD(stop=Misclassified(), transforms=(DiverseInput(),))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: After(-1), "steps"),
        (lambda: Misclassified(-1), "tau"),
        (lambda: Misclassified(0, (2.0,)), "later"),
        (lambda: Stationary(-1.0), "c must"),
        (lambda: Stationary(0.5, 2.0), "end"),
    ],
)
def test_bad_numbers_are_refused(make, field):
    with pytest.raises(ValueError, match=field):
        make()


def test_never_is_the_default():
    assert PGD().stop == Never()


def test_halted_images_ask_nothing_more_of_the_model():
    """On a linear model that nothing defends; without a rule every step is taken by every image."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0.2, 0.8, (16, 4, 4, 1)).astype(np.float32)
    weights = rng.normal(size=(16, 4)).astype(np.float32)

    def asked(**fields):
        attack = {"pgd": PGD(Linf(0.3), steps=100, **fields)}
        labels = (images.reshape(16, -1) @ weights).argmax(1)
        model = lambda x: x.reshape(len(x), -1) @ weights  # noqa: E731
        report = evaluate(model, images, labels, attack, jax.random.key(0), diagnose=False)
        assert report.robust["pgd"] == 0
        return report.stages["pgd"][0]["forwards"]

    assert asked() == 1600
    assert asked(stop=Misclassified()) < 200
