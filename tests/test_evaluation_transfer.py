"""Transfer between linear models, where every number is known."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from robustjax.attacks import BIM, FGSM, PGD
from robustjax.evaluation import evaluate, transfer
from robustjax.threats import Linf

N, EPS = 50, 0.05
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.2, 0.8, (N, 4, 4, 1)).astype(np.float32)
FLAT = IMAGES.reshape(N, -1)
WEIGHTS = {"a": RNG.normal(size=(16, 2)).astype(np.float32)}
WEIGHTS["b"] = WEIGHTS["a"] + 0.7 * RNG.normal(size=(16, 2)).astype(np.float32)
WEIGHTS["c"] = RNG.normal(size=(16, 2)).astype(np.float32)
BIAS = {name: -np.median(FLAT @ w, axis=0) for name, w in WEIGHTS.items()}
LABELS = (FLAT @ WEIGHTS["a"] + BIAS["a"]).argmax(-1)
LABELS[:4] = 1 - LABELS[:4]
ATTACK = FGSM(Linf(EPS))


def apply(weights, x):
    return x.reshape(len(x), -1) @ weights[0] + weights[1][None]


MODELS = {name: jax.tree_util.Partial(apply, (w, BIAS[name])) for name, w in WEIGHTS.items()}
SOURCES = {name: MODELS[name] for name in "ab"}


def run(attack=ATTACK, sources=SOURCES, targets=MODELS, **more):
    return transfer(attack, sources, targets, IMAGES, LABELS, jax.random.key(0), **more)


def wins(source, target):
    """FGSM away from the box moves every pixel by eps along the source's slope."""
    slope = np.sign(WEIGHTS[source][:, 1] - WEIGHTS[source][:, 0]) * (1 - 2 * LABELS)[:, None]
    z = (FLAT + EPS * slope) @ WEIGHTS[target] + BIAS[target]
    return z.argmax(-1) != LABELS


RIGHT = {name: (FLAT @ w + BIAS[name]).argmax(-1) == LABELS for name, w in WEIGHTS.items()}


@pytest.fixture(scope="module")
def result():
    return run()


def test_the_matrix_is_the_closed_form(result):
    assert result.n == N
    assert result.clean == {name: pytest.approx(right.mean()) for name, right in RIGHT.items()}
    for source in SOURCES:
        assert set(result.accuracy[source]) == set(MODELS)
        for target in MODELS:
            won, both = wins(source, target), RIGHT[source] & RIGHT[target]
            np.testing.assert_array_equal(result.fooled[source][target], won)
            assert result.accuracy[source][target].value == pytest.approx(1 - won.mean())
            assert result.accuracy[source][target].n == N
            assert result.success[source][target].value == pytest.approx(won[both].mean())
            assert result.success[source][target].n == both.sum()
    success = {t: rate.value for t, rate in result.success["a"].items()}
    assert success["a"] > success["b"] > success["c"]  # the nearer the model, the better


def test_standard_errors_are_binomial(result):
    for matrix in (result.accuracy, result.success):
        p, error, n = matrix["a"]["b"]
        assert error == pytest.approx(np.sqrt(p * (1 - p) / n)) and error > 0


def test_equal_models_are_the_white_box(result):
    """And an image that the model gets wrong clean is wrong afterwards: FGSM pushes further."""
    report = evaluate(MODELS["a"], IMAGES, LABELS, {"x": ATTACK}, jax.random.key(0), diagnose=False)
    assert result.accuracy["a"]["a"].value == pytest.approx(report.robust["x"])


def test_batch_size_order_of_images_and_of_models_change_nothing(result):
    attack, order = PGD(Linf(EPS), steps=3), RNG.permutation(N)
    one = run(attack, batch_size=N)
    other = transfer(
        attack,
        dict(reversed(SOURCES.items())),
        dict(reversed(MODELS.items())),
        IMAGES[order],
        LABELS[order],
        jax.random.key(0),
        indices=order,
        batch_size=8,
    )
    assert one.to_json() == other.to_json()
    for name in SOURCES:
        np.testing.assert_array_equal(one.adversarial[name][order], other.adversarial[name])


def test_json_is_plain(result):
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert data["accuracy"]["a"]["b"]["value"] == result.accuracy["a"]["b"].value
    assert data["success"]["a"]["c"]["n"] == result.success["a"]["c"].n
    assert data["attack"]["type"] == "PGD" and data["n"] == N


def test_no_image_that_both_have_right():
    """The opposite of a model is right where that one is wrong."""
    opposite = jax.tree_util.Partial(apply, (-WEIGHTS["a"], -BIAS["a"]))
    found = run(sources={"a": MODELS["a"]}, targets={"opposite": opposite})
    assert found.success["a"]["opposite"] == (None, None, 0)
    json.dumps(found.to_json(), allow_nan=False)


def test_success_decides_what_counts():
    """Only label 1 can be lost."""
    found = run(success=lambda output, y: (output.argmax() != y) & (y == 1))
    for target in MODELS:
        won = wins("a", target) & (LABELS == 1)
        assert found.accuracy["a"][target].value == pytest.approx(1 - won.mean())
        assert found.clean[target] == pytest.approx((RIGHT[target] | (LABELS == 0)).mean())


def test_one_name_is_one_model():
    with pytest.raises(ValueError, match="one model as source"):
        run(targets={"a": MODELS["b"]})
    with pytest.raises(ValueError, match="at least one"):
        run(sources={})


def test_the_attack_is_described_and_kept_inside_its_ball(result):
    moved = np.abs(result.adversarial["b"] - IMAGES).max()
    assert moved == pytest.approx(EPS, rel=1e-4)
    longer = run(BIM(Linf(EPS), 5))
    assert longer.attack["fields"]["steps"] == 5
    assert dataclasses.is_dataclass(longer)
