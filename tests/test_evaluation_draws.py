"""Models that draw: probabilities with known answers, looks at means, fixed and fresh draws."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binomtest, norm

from robustjax.attacks import BIM, PGD, DeepFool, Randomized, Square, WorstOf, perturb
from robustjax.config import config
from robustjax.evaluation import evaluate, wilson
from robustjax.threats import L2, Linf
from robustjax.typing import Cost

KEY, N = jax.random.key(0), 16
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.3, 0.7, (N, 4, 4, 1)).astype(np.float32)
W = RNG.normal(size=16).astype(np.float32)
SIGMA, EPS = 0.3, 0.02


def test_wilson_s_interval_is_that_of_scipy():
    for wins in (0, 3, 10):
        said = binomtest(wins, 10).proportion_ci(0.95, "wilson")
        np.testing.assert_allclose(wilson(wins, 10, norm.ppf(0.975)), said, atol=1e-12)
    assert wilson([1, 2], 4).shape == (2, 2)
    assert wilson(51, 51)[1] == 1  # rounding left the fraction itself outside


def coin(p, key, x):
    """Wrong with probability p, whatever the image, of two classes."""
    side = jnp.where(jax.random.bernoulli(key, p), -1.0, 1.0)
    return jnp.stack([side + 0 * x.sum((1, 2, 3)), -side + 0 * x.sum((1, 2, 3))], axis=1)


def test_no_attack_beats_a_coin():
    """Stages, attacks and images are chosen by luck alone, and luck does not count."""
    p = 0.3
    model = Randomized(jax.tree_util.Partial(coin, p))
    step = PGD(Linf(EPS), steps=1)
    attacks = {"one": step, "two": WorstOf((step, step))}
    report = functools.partial(
        evaluate, model, IMAGES, np.zeros(N, int), attacks, KEY, draws=25, diagnose=False
    )
    found = report()
    for name, accuracy in {"worst_case": found.worst_case, **found.robust}.items():
        row = found.draws["accuracy"][name]
        assert row["fresh"] == accuracy and row["fixed"] is None
        low, high = wilson(accuracy * N * 25, N * 25, deviations=4)
        assert low < 1 - p < high and row["interval"][0] < accuracy < row["interval"][1]
    assert not found.examples["two"]["fooled"].any()
    found = report(vote=True)
    assert found.draws["vote"] and found.clean == found.worst_case == 1


def gaussian(w, key, x):
    """A linear model of two classes whose input is noisy."""
    z = (x + SIGMA * jax.random.normal(key, x.shape)).reshape(len(x), -1) @ w
    return jnp.stack([z, 0 * z], axis=1)


def test_a_linear_model_with_gaussian_noise_errs_as_often_as_phi_says():
    center = IMAGES.reshape(N, -1) @ W
    ahead = np.abs(center - np.median(center))

    def model(key, x):
        z = gaussian(W, key, x)
        return z.at[:, 1].set(np.median(center))

    labels = (center < np.median(center)).astype(int)
    bim = BIM(Linf(EPS), steps=2)
    attacks = {"bim": bim}
    found = evaluate(Randomized(model), IMAGES, labels, attacks, KEY, draws=40, diagnose=False)
    left = ahead - EPS * np.abs(W).sum()
    attacked = found.examples["seen"] <= 0.5
    for wrong, distance in (
        (found.examples["wrong"], ahead),
        (found.examples["bim"]["wrong"], left),
    ):
        p = norm.cdf(-distance / (SIGMA * np.linalg.norm(W)))
        low, high = wilson(np.round(40 * wrong), 40, deviations=4.5)
        assert ((low < p) & (p < high))[attacked].all() and attacked.sum() > N / 2
    assert found.robust["bim"] == pytest.approx(1 - found.examples["bim"]["wrong"].mean())


@config
class Look:
    """The first and the last pixel become what the attack sees there: an output and a slope."""

    threat: Linf = Linf(1.0)
    cost = Cost(1, 1)

    def __call__(self, logits_fn, key, x, y, target=None):
        value, slope = jax.value_and_grad(lambda z: logits_fn(z)[0])(x)
        return jnp.zeros_like(x).at[0, 0].set(value).at[-1, -1].set(slope[0, 0])


def test_an_attack_that_draws_nothing_sees_the_mean_of_many_draws():
    """One pixel is multiplied by a number that is uniform in [0, 1]."""

    def model(key, x):
        z = jax.random.uniform(key) * x[:, 0, 0]
        return jnp.concatenate([z, 0 * z], axis=1)

    labels = np.zeros(N, int)
    for eot, deviation in ((1, 1 / np.sqrt(12)), (64, 1 / np.sqrt(12 * 64))):
        seen = perturb(Look(), Randomized(model, eot=eot), KEY, IMAGES, labels)
        factor = seen[:, 0, 0, 0] / IMAGES[:, 0, 0, 0]
        np.testing.assert_allclose(factor, seen[:, -1, -1, 0], rtol=1e-5)
        assert abs(factor.mean() - 0.5) < 4 * deviation / np.sqrt(N)
        assert 0.6 < factor.std() / deviation < 1.5
    found = evaluate(
        Randomized(model, eot=64), IMAGES, labels, {"look": Look()}, KEY, diagnose=False
    )
    assert found.stages["look"][0]["forwards"] == 64 * found.stages["look"][0]["attacked"]


def weights(key, x):
    """A linear model of two classes with noise on its weights as large as they are."""
    z = (x - 0.5).reshape(len(x), -1) @ (W + 2 * jax.random.normal(key, W.shape))
    return jnp.stack([z, 0 * z], axis=1)


LABELS = ((IMAGES - 0.5).reshape(N, -1) @ W < 0).astype(int)


def test_with_more_draws_the_nearest_boundary_is_that_of_the_mean_model():
    exact = np.abs((IMAGES - 0.5).reshape(N, -1) @ W) / np.linalg.norm(W)
    error = []
    for eot in (1, 1024):
        model = Randomized(weights, eot=eot)
        z = perturb(DeepFool(L2(np.inf), steps=5), model, KEY, IMAGES, LABELS)
        away = (z - IMAGES).reshape(N, -1) @ W / np.linalg.norm(W)
        error.append(np.median(np.abs(np.abs(away) - exact) / exact))
    assert error[1] < 0.15 and error[1] < error[0] / 3


def test_square_averages_too_and_what_fixed_draws_promise_is_flagged():
    images = RNG.uniform(0.3, 0.7, (24, 4, 4, 1)).astype(np.float32)
    labels = ((images - 0.5).reshape(24, -1) @ W < 0).astype(int)
    attacks, report = (
        {"square": Square(Linf(0.2), queries=60)},
        functools.partial(evaluate, draws=9),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        one = report(Randomized(weights), images, labels, attacks, KEY)
    row = one.draws["accuracy"]["square"]
    assert row["fixed"] < row["interval"][0] and one.worst_case == row["fresh"]
    for said in ("square: one fixed draw", "hangs on the draws: raise eot", "output is random"):
        assert any(said in note for note in one.warnings)
    many = Randomized(weights, eot=16)
    many = report(many, images, labels, attacks, KEY, diagnose=False)
    assert many.robust["square"] < one.robust["square"] - 0.05


def test_draws_are_refused_where_nothing_draws():
    def model(x):
        return jnp.stack([x.sum((1, 2, 3)), x[:, 0, 0, 0]], axis=1)

    for given, said in (
        (dict(draws=5), "no key to draw with: give attacks.Randomized"),
        (dict(vote=True), "a vote is over the classes"),
    ):
        with pytest.raises(ValueError, match=said):
            evaluate(model, IMAGES, LABELS, {}, KEY, **given)
    with pytest.raises(ValueError, match="draws must be an integer of at least 1, got 0"):
        evaluate(Randomized(weights), IMAGES, LABELS, {}, KEY, draws=0)
    with pytest.raises(ValueError, match="eot must"):
        Randomized(weights, eot=0)
