"""Carlini-Wagner in L2 and Linf, and EAD: closed forms of linear classifiers, and every promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import (
    EAD,
    CarliniWagnerL2,
    CarliniWagnerLinf,
    StartAt,
    perturb,
)
from robustjax.attacks._engine import slots as engine
from robustjax.attacks._engine.inputs import check_request
from robustjax.attacks.targets import Random, Ranked
from robustjax.deterministic import ordered_sum, spread
from robustjax.losses import compares_with, targeted_margin

N, SHAPE, SIZE, K = 24, (4, 4, 2), 32, 4
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.35, 0.65, (N, *SHAPE)).astype(np.float32)
W = (0.4 * RNG.normal(size=(SIZE, K))).astype(np.float32)
BIAS = -np.median(IMAGES.reshape(N, -1) @ W, axis=0)
ATTACKS = {
    "cw-l2": CarliniWagnerL2(steps=100),
    "cw-linf": CarliniWagnerLinf(steps=60),
    "ead": EAD(steps=60),
    "ead-l1": EAD(steps=60, beta=0.01, rule="L1"),
}
LAW = {"cw-l2": 1.05, "cw-linf": 1.12, "ead": 1.05}
NAMES = pytest.mark.parametrize("name", ATTACKS)


def linear(weights, x):
    """A product whose bits do not depend on the batch; XLA's may, on tiny matrices."""
    w, bias = weights
    return jax.vmap(lambda row: ordered_sum(spread(row.reshape(-1), K).T * w) + bias)(x)


def model(classes=K, scale=1.0):
    """The first classes only; the others' logits are far below."""
    bias = np.where(np.arange(K) < classes, scale * BIAS, -1e3).astype(np.float32)
    return jax.tree_util.Partial(linear, (scale * W, bias))


MODEL, CONSTANT = model(), model(scale=0.0)


def labels(model):
    return np.asarray(model(IMAGES)).argmax(-1)


def replace(name, **fields):
    return type(ATTACKS[name])(**{**vars(ATTACKS[name]), **fields})


def run(attack, model=MODEL, y=None, **rest):
    y = labels(model) if y is None else y
    return perturb(attack, model, jax.random.key(0), IMAGES, y, batch_size=N, **rest)


def gains(model, z, y):
    logits = np.array(model(z), np.float64)
    own = logits[np.arange(N), y]
    logits[np.arange(N), y] = -np.inf
    return logits.max(1) - own


def size(attack, z):
    return np.asarray(jax.vmap(attack.measure)(z, IMAGES))


def elastic(direction, need, beta):
    """min |d|^2 + beta |d|_1 with <direction, d> = need: a soft threshold, by its multiplier."""
    low, high = 0.0, 1e4
    for _ in range(80):
        t = (low + high) / 2
        d = np.maximum(t * np.abs(direction) - beta, 0) / 2
        low, high = (low, t) if d @ np.abs(direction) >= need else (t, high)
    return (d**2).sum() + beta * d.sum()


def optimum(name, model, y, targets=None, confidence=0.0):
    """The smallest size of all wrong classes, or towards the targets, in float64."""
    w, bias = (np.asarray(a, np.float64) for a in model.args[0])
    best = np.full(N, np.inf)
    for i, x in enumerate(IMAGES.reshape(N, -1).astype(np.float64)):
        logits = x @ w + bias
        for j in range(K) if targets is None else [targets[i]]:
            if j != y[i]:
                direction, need = w[:, j] - w[:, y[i]], logits[y[i]] - logits[j] + confidence
                size = {
                    "cw-l2": lambda d, m: m / np.linalg.norm(d),
                    "cw-linf": lambda d, m: m / np.abs(d).sum(),
                    "ead": lambda d, m: elastic(d, m, ATTACKS["ead"].beta),
                }[name](direction, need)
                best[i] = min(best[i], size)
    return best


@pytest.mark.parametrize("classes", [2, K])
@pytest.mark.parametrize("name", LAW)
def test_the_distance_is_the_closed_form_one(name, classes):
    m = model(classes)
    y = labels(m)
    assert len(set(y)) == classes
    z = run(ATTACKS[name], m, y)
    assert (gains(m, z, y) > 0).all()  # every one is won
    ratio = size(ATTACKS[name], z) / optimum(name, m, y)
    assert ratio.min() > 1 - 1e-4 and np.median(ratio) <= (LAW[name] + 1) / 2


@NAMES
def test_the_confidence_is_reached_and_paid_for(name):
    y = labels(MODEL)
    z = run(replace(name, confidence=0.5), y=y)
    assert (gains(MODEL, z, y) >= 0.5).all() and np.median(gains(MODEL, z, y)) < 0.51
    if name in LAW:
        ratio = size(ATTACKS[name], z) / optimum(name, MODEL, y, confidence=0.5)
        assert ratio.min() > 1 - 1e-4 and np.median(ratio) <= LAW[name]


def test_a_target_is_reached_whoever_chose_it(name="cw-l2"):
    y, logits = labels(MODEL), np.asarray(MODEL(IMAGES))
    second = np.argsort(logits)[:, -2]
    z = run(replace(name, target=Ranked()), y=y)
    np.testing.assert_array_equal(np.asarray(MODEL(z)).argmax(-1), second)
    given = run(ATTACKS[name], y=y, targets=second)
    np.testing.assert_allclose(given, z, atol=1e-6)  # another program, which may round otherwise
    far = run(replace(name, target=Ranked(K - 1)), y=y)
    np.testing.assert_array_equal(np.asarray(MODEL(far)).argmax(-1), logits.argmin(-1))


@NAMES
def test_what_is_wrong_already_costs_nothing(name):
    y = (labels(MODEL) + np.arange(N) % 2) % K
    z = run(ATTACKS[name], y=y)
    same = (z == IMAGES).all((1, 2, 3))
    np.testing.assert_array_equal(same, np.arange(N) % 2 == 1)


@NAMES
def test_a_constant_model_keeps_its_images(name):
    z = run(ATTACKS[name], CONSTANT, np.zeros(N, np.int32))
    np.testing.assert_array_equal(z, IMAGES)


@pytest.mark.parametrize("name", LAW)
def test_any_order_and_batch_size_give_the_same_bits(name):
    y, order = labels(MODEL), RNG.permutation(N)
    whole = run(ATTACKS[name])
    key = jax.random.key(0)
    again = perturb(ATTACKS[name], MODEL, key, IMAGES[order], y[order], indices=order, batch_size=8)
    np.testing.assert_array_equal(again, whole[order])


def test_pixels_at_the_edge_of_the_box_move():
    """All pixels are 0 or 1; the optimum in the box is a clip of the direction, by bisection."""
    images = np.round(IMAGES)
    y = np.asarray(MODEL(images)).argmax(-1)
    z = perturb(ATTACKS["cw-l2"], MODEL, jax.random.key(0), images, y, batch_size=N)
    assert (gains(MODEL, z, y) > 0).all()
    best = np.full(N, np.inf)
    for i, x in enumerate(images.reshape(N, -1)):
        logits = x.astype(np.float64) @ W + BIAS
        for j in set(range(K)) - {y[i]}:
            direction = W[:, j].astype(np.float64) - W[:, y[i]]
            room, gain = (direction > 0) == (x == 0), np.abs(direction)
            low, high = 0.0, 1e4
            for _ in range(80):
                t = (low + high) / 2
                enough = np.minimum(t * gain, room) @ gain >= logits[y[i]] - logits[j]
                low, high = (low, t) if enough else (t, high)
            if high < 1e4:
                best[i] = min(best[i], np.linalg.norm(np.minimum(high * gain, room)))
    ratio = np.linalg.norm((z - images).reshape(N, -1), axis=1) / best
    assert ratio.min() > 1 - 1e-4 and np.median(ratio) <= 1.01


def test_the_cost_is_that_of_each_example():
    """An example's calls do not depend on the others; a step of EAD has two forward passes."""
    y = np.where(np.arange(N) < 2, labels(MODEL), (labels(MODEL) + 1) % K)
    counts = {}
    for name in ("cw-l2", "ead"):
        request = (MODEL, jax.random.key(0), IMAGES, y, None, N)
        m, key, examples, batch = check_request(*request)
        counts[name] = engine.over_slots(ATTACKS[name], m, key, (), examples, batch)[0].cost
    for name, cost in counts.items():
        passes = 1 + (name == "ead")
        np.testing.assert_array_equal(cost.forwards, 1 + passes * cost.backwards)
        assert (cost.backwards[2:] == 0).all()
        assert (cost.backwards[:2] > 60).all() and (cost.backwards[:2] <= 9 * 100).all()


@compares_with("pair")
def ahead_and_low(output, target):
    """A detector that also wants the first component of the image below 0.3."""
    logits, x = output
    ahead = targeted_margin(logits, target)
    return jnp.minimum(ahead - 0.2, 0) + jnp.minimum(0.3 - x[0, 0, 0], 0)


def accepted_and_wrong(output, y):
    return (jnp.argmax(output[0]) != y) & (output[1][0, 0, 0] <= 0.3)


def test_a_detector_is_attacked_from_another_start(name="cw-l2"):
    """Of white-box attacks on detectors: own loss, own success, a start that is not the image."""
    base = MODEL

    def both(weights, x):
        return linear(weights, x), x

    m = jax.tree_util.Partial(both, *base.args)
    y = labels(base)
    targets = StartAt(np.clip(IMAGES + 0.1, 0, 1), (y + 1) % K)
    attack = replace(name, loss=ahead_and_low, success=accepted_and_wrong, steps=200)
    z = run(attack, m, y, targets=targets)
    moved = (z != IMAGES).any((1, 2, 3))
    assert moved.mean() > 0.9 and (z[moved, 0, 0, 0] <= 0.3).all()
    logits = np.asarray(base(z), np.float64)
    ahead = logits[np.arange(N), (y + 1) % K] - logits[np.arange(N), y]
    assert (ahead[moved] >= 0.2 - 1e-5).all()
    assert (np.asarray(base(z)).argmax(-1) != y)[moved].all()
    plain = run(attack, m, y, targets=targets.target)
    far, near = size(attack, z)[moved], size(attack, plain)[moved]
    assert np.median(far / near) < 1.05  # the distance is that from the clean image


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"confidence": -1.0}, "confidence"),
        ({"steps": 0}, "steps"),
        ({"target": "best"}, "target"),
        ({"target": Random(with_label=True)}, "target"),  # may be the label
        ({"constant": 0.0}, "constant"),
        ({"beta": -1.0}, "beta"),
        ({"rule": "L2"}, "rule"),
    ],
)
def test_bad_input_is_refused(bad, match):
    with pytest.raises(ValueError, match=match):
        EAD(**bad)


def test_a_loss_that_needs_a_target_says_so():
    with pytest.raises(ValueError, match="target"):
        run(CarliniWagnerL2(loss=targeted_margin))
