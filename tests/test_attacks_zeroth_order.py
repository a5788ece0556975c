"""SPSA and NES on linear classifiers, whose gradient and robust accuracy are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import counting

from robustjax.attacks import (
    NES,
    SPSA,
    MultiTargeted,
    Randomized,
    ZerothOrder,
    perturb,
)
from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import fooled
from robustjax.attacks.targets import Goal, LeastLikely, Ranked, TrueLabel
from robustjax.losses import cross_entropy, kl, margin, targeted_margin
from robustjax.threats import L2, Linf

N, SHAPE = 32, (6, 6, 1)
SIZE = 36
RNG = np.random.default_rng(0)
X = RNG.uniform(0.3, 0.7, (N, *SHAPE)).astype(np.float32)
W = RNG.normal(size=(SIZE, 2)).astype(np.float32)
BIAS = -(X.reshape(N, -1) @ W).mean(0)
KEY = jax.random.key(1)


def linear(w, x):
    return x.reshape(len(x), -1) @ w + jnp.asarray(BIAS)[None]


MODEL = jax.tree_util.Partial(linear, W)
Z = np.asarray(linear(W, X))
Y = Z.argmax(-1)
GAP = np.abs(Z[:, 0] - Z[:, 1])
SLOPE = W[:, 1] - W[:, 0]


def never(output, y):
    return jnp.asarray(False)


def one(x):
    return linear(W, x[None])[0]


run_counted = counting(one)


def direction(logits, target):
    return logits[1] - logits[0]


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
@pytest.mark.parametrize("place", ["inside", "on the box"])
def test_the_estimate_tends_to_the_gradient(noise, place):
    """Its error falls like 1 / sqrt(samples), without a bias where queries are clipped."""
    x = X[0] if place == "inside" else (X[0] > 0.5).astype(np.float32)
    errors = []
    for samples in (64, 1024, 16384):
        attack = ZerothOrder(samples=samples, noise=noise, loss=direction)
        estimate = attack.estimate(one, KEY, jnp.asarray(x), Goal(0, direction))
        errors.append(np.linalg.norm(estimate.ravel() - SLOPE) / np.linalg.norm(SLOPE))
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.1 and errors[0] / errors[2] > 8


def rounded(w, x):
    """Its gradient is zero, but differences of its scores still lead the way."""
    return jnp.round(linear(w, x), 2)


CASES = {
    "spsa-linf-rounded": (SPSA, Linf, 1, jax.tree_util.Partial(rounded, W)),
    "nes-linf": (NES, Linf, 1, MODEL),
    "nes-l2": (NES, L2, 2, MODEL),
}


@pytest.mark.parametrize("case", CASES)
def test_more_samples_come_closer_to_the_optimum(case):
    make, norm, dual, model = CASES[case]
    radius = GAP / np.linalg.norm(SLOPE, dual)
    eps = float(np.median(radius))
    best, shares = eps * np.linalg.norm(SLOPE, dual), []
    for samples in (8, 32, 128):
        attack = make(norm(eps), steps=30, samples=samples, success=never)
        z = np.asarray(linear(W, perturb(attack, model, KEY, X, Y)))
        gain = z[np.arange(N), 1 - Y] - z[np.arange(N), Y] + GAP
        shares.append(gain / best)
    assert np.max(shares) < 1 + 1e-4
    assert shares[0].mean() < shares[1].mean() < shares[2].mean()
    assert shares[2].mean() > 0.98
    decided = np.abs(radius / eps - 1) > 0.05
    assert decided.sum() > N / 2
    np.testing.assert_array_equal((gain > GAP)[decided], (radius < eps)[decided])


@pytest.mark.parametrize("target", [TrueLabel(), LeastLikely()])
def test_queries_are_counted_and_stay_in_the_box(target):
    """At corners of the box half of all queries would leave it."""
    x = (X[0] > 0.5).astype(np.float32)
    y = int(np.argmax(one(x)))
    attack = NES(Linf(0.02), steps=3, samples=6, delta=0.1, target=target, success=never)
    _, state, asked = run_counted(attack, KEY, x, y)
    cost = attack.spent(state)
    assert (int(cost.forwards), cost.backwards) == (len(asked), 0)
    assert len(asked) == 1 + target.forwards + 3 * 7
    assert asked.min() == 0 and asked.max() == 1
    assert len(np.unique(asked, axis=0)) > 3 * 6


def test_it_stops_at_success():
    y = int(Y[0])
    image, state, asked = run_counted(NES(Linf(0.5), steps=50, samples=16), KEY, X[0], y)
    assert int(np.argmax(one(image))) != y
    assert len(asked) == 1 + 17 * int(state.looks) and int(state.looks) < 50
    _, _, asked = run_counted(NES(Linf(0.5), samples=16), KEY, X[0], 1 - y)
    assert len(asked) == 1


def test_ranks_of_multi_targeted():
    """Three classes of which only the least likely can be reached inside the ball."""
    w = np.stack([np.zeros(SIZE), 0.001 * RNG.normal(size=SIZE), RNG.normal(size=SIZE)], 1)
    w = w.astype(np.float32)
    x = np.full((8, *SHAPE), 0.5, np.float32)
    bias = np.array([0, -0.1, -1], np.float32) - x[0].reshape(-1) @ w

    def logits(w, x):
        return x.reshape(len(x), -1) @ w + jnp.asarray(bias)[None]

    model = jax.tree_util.Partial(logits, w)
    attack = NES(Linf(0.1), steps=10, loss=cross_entropy)
    for n, wins in ((1, 0), (2, 8)):
        z = perturb(MultiTargeted(attack, n), model, KEY, x, np.zeros(8, int))
        assert (np.asarray(logits(w, z)).argmax(-1) != 0).sum() == wins


def test_pairs_share_a_draw_and_each_has_its_own():
    """A random offset cancels within a pair; a random sign of the slope averages out."""

    def offset(key, x):
        return one(x) * jnp.array([1.0, 1.0]) + jax.random.normal(key, (2,)) * 1e3

    def scaled(key, x):
        return one(x) * jax.random.uniform(key, (), minval=0.0, maxval=2.0)

    x, attack = jnp.asarray(X[0]), ZerothOrder(samples=4096, loss=direction)
    for function in (offset, scaled):
        g = attack.estimate(Randomized(function), KEY, x, Goal(0, direction)).ravel()
        assert np.linalg.norm(g - SLOPE) < 0.25 * np.linalg.norm(SLOPE), function


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"samples": 7}, "even number"),
        ({"samples": 0}, "samples must lie in"),
        ({"delta": 0.0}, "delta must lie in"),
        ({"noise": "uniform"}, "noise must be one of"),
        ({"target": "wrong"}, "target must be a Target"),
        ({"steps": -1}, "steps must lie in"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ZerothOrder(**fields)


def test_a_loss_that_needs_a_target_says_so():
    with pytest.raises(ValueError, match="kl needs a target"):
        perturb(NES(loss=kl), MODEL, KEY, X, Y)


def test_a_given_target_is_used():
    """And what the loss aims at is followed: away from the label, or towards the class."""
    x, attack = jnp.asarray(X[0]), ZerothOrder(samples=1024, loss=targeted_margin)
    state = attack.begin(one, Example(KEY, x, 0, 1))
    assert state.goal.compared == (0, 1)
    g = attack.estimate(one, KEY, x, state.goal).ravel()
    assert g @ SLOPE > 0.9 * np.linalg.norm(g) * np.linalg.norm(SLOPE)
    for target, y, sign in ((TrueLabel(), 0, 1), (Ranked(), 1, -1)):
        attack = ZerothOrder(samples=1024, loss=cross_entropy, target=target)
        state = attack.begin(one, Example(KEY, x, jnp.asarray(y)))
        assert state.goal.compared == (y if target == TrueLabel() else 1 - y)
        g = sign * attack.estimate(one, KEY, x, state.goal).ravel()
        assert g @ SLOPE > 0.9 * np.linalg.norm(g) * np.linalg.norm(SLOPE), (target, y)


def test_defaults_are_the_papers():
    spsa, nes = SPSA(), NES()
    assert (spsa.noise, spsa.step_size, spsa.delta, spsa.samples) == ("rademacher", 0.01, 0.01, 128)
    assert (nes.noise, nes.delta, nes.samples, nes.rule.decay) == ("gaussian", 0.001, 50, 0.9)
    assert spsa.loss is nes.loss is margin and spsa.success is nes.success is fooled
