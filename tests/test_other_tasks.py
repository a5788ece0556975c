"""Tasks without classes: a loss and a success of one's own, and labels that they read.

The models are linear, so the strongest change of every output is known.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import APGD, BIM, PGD, DeepFool, MultiTargetedPGD, Restarts, Square, perturb
from robustjax.detection import MaxMargin
from robustjax.evaluation import curve, evaluate, transfer, zero_gradient
from robustjax.losses import margin
from robustjax.threats import Linf

N, EPS = 12, 0.05
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.25, 0.75, (N, 4, 4, 1)).astype(np.float32)
W = RNG.normal(size=16).astype(np.float32)
KEY = jax.random.key(0)


def ahead(output, bound):
    return output - bound


def above(output, bound):
    return output > bound


def scalar(x):
    return x.reshape(len(x), -1) @ jnp.asarray(W)


FAR = EPS * np.abs(W).sum() * (2 * np.arange(N) + 1) / N
"""How far each output may rise before it is above its bound; half of them can at EPS."""
BOUNDS = (np.asarray(scalar(IMAGES)) + FAR).astype(np.float32)
CLIMB = BIM(Linf(EPS), steps=2)


def own(attack, **fields):
    return type(attack)(**{**vars(attack), **fields})


@pytest.mark.parametrize(
    "attack",
    [
        own(CLIMB, loss=ahead),
        APGD(Linf(EPS), steps=8, loss=ahead, success=above),
        Restarts(PGD(Linf(EPS), steps=8, loss=ahead), 2, success=above),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_a_number_per_image(attack):
    report = evaluate(scalar, IMAGES, BOUNDS, {"a": attack}, KEY, success=above, diagnose=False)
    assert (report.clean, report.robust["a"], report.worst_case) == (1, 0.5, 0.5)
    np.testing.assert_array_equal(report.examples["a"]["fooled"], np.arange(N) < N / 2)
    assert "prediction" not in report.examples


def test_the_other_entry_points_take_it_too(tmp_path):
    attack = own(CLIMB, loss=ahead)
    z = perturb(attack, scalar, KEY, IMAGES, BOUNDS, success=above)
    np.testing.assert_allclose(scalar(z) - scalar(IMAGES), EPS * np.abs(W).sum(), rtol=1e-4)
    radii = [0, EPS / 2, EPS]
    found = curve(scalar, IMAGES, BOUNDS, attack, radii, KEY, success=above)
    assert found["accuracy"] == [1, 0.75, 0.5]
    flat = own(CLIMB, loss=lambda output, bound: jnp.sign(output - bound))
    for loss, blind in ((attack, 0), (flat, 1)):
        assert zero_gradient(scalar, IMAGES, BOUNDS, loss, KEY, success=above) == blind
    moved = transfer(attack, {"a": scalar}, {"a": scalar}, IMAGES, BOUNDS, KEY, success=above)
    assert moved.success["a"]["a"].value == 0.5
    with pytest.warns(UserWarning, match="returns no logits"):
        report = evaluate(
            scalar, IMAGES, BOUNDS, {"a": attack}, KEY, success=above, journal=tmp_path
        )
    assert len(report.warnings) == 1 and report.zero_gradient == {"a": 0}
    report.save_examples(tmp_path / "examples.npz")
    with pytest.raises(ValueError, match="output is NaN on 12 clean images"):
        evaluate(lambda x: scalar(x) * jnp.nan, IMAGES, BOUNDS, {}, KEY, success=above)


def test_segmentation():
    """A pixel is of class 0 above 1/2, so eps changes those within it."""

    def pixels(x):
        return jnp.concatenate([x - 0.5, 0.5 - x], -1)

    def loss(output, label):
        return jax.vmap(jax.vmap(margin))(output, label).sum()

    def most_wrong(output, label):
        return (output.argmax(-1) != label).mean() > 0.5

    labels = (IMAGES[..., 0] < 0.5).astype(np.uint8)
    attack = own(BIM(Linf(0.12), steps=2), loss=loss)
    report = evaluate(
        pixels, IMAGES, labels, {"a": attack}, KEY, success=most_wrong, diagnose=False
    )
    reach = (np.abs(IMAGES - 0.5) < 0.12).mean((1, 2, 3)) > 0.5
    assert 0 < reach.mean() < 1 and report.clean == 1
    np.testing.assert_array_equal(report.examples["a"]["fooled"], reach)


class Detected(NamedTuple):
    """Several arrays with names, none of them logits."""

    box: jax.Array
    score: jax.Array


@pytest.mark.parametrize(
    "model",
    [
        lambda x: {"score": scalar(x), "box": x[:, :2, 0, 0]},
        lambda x: Detected(x[:, :2, 0, 0], scalar(x)),
    ],
    ids=["dict", "named tuple"],
)
def test_pytrees_without_logits(model):
    def score(output):
        return output["score"] if isinstance(output, dict) else output.score

    attack = own(CLIMB, loss=lambda output, bound: score(output) - bound)
    asked = IMAGES, BOUNDS, {"a": attack}, KEY
    report = evaluate(model, *asked, success=lambda out, bound: score(out) > bound, diagnose=False)
    assert report.robust["a"] == 0.5


@pytest.mark.parametrize("dtype", [bool, np.float64])
def test_several_labels(dtype):
    """Labels read disjoint pixels, so one direction is the strongest against all of them."""
    weights = np.zeros((16, 3), np.float32)
    weights[np.arange(15), np.arange(15) % 3] = W[:15]

    def model(x):
        return (x.reshape(len(x), -1) - 0.5) @ jnp.asarray(weights)

    def loss(logits, label):
        return jnp.sum(jnp.where(label > 0, -logits, logits))

    def any_wrong(logits, label):
        return jnp.any((logits > 0) != (label > 0))

    logits = np.asarray(model(IMAGES))
    labels, attack = (logits > 0).astype(dtype), own(CLIMB, loss=loss)
    report = evaluate(model, IMAGES, labels, {"a": attack}, KEY, success=any_wrong, diagnose=False)
    wrong = (np.abs(logits) < EPS * np.abs(weights).sum(0)).any(-1)
    assert 0 < wrong.mean() < 1
    np.testing.assert_array_equal(report.examples["a"]["fooled"], wrong)
    np.testing.assert_array_equal(report.examples["prediction"], logits.argmax(-1))


def test_what_does_not_fit_together_is_refused():
    attack = own(CLIMB, loss=ahead)
    label = np.zeros(N, int)
    for ask, message in (
        (lambda: evaluate(scalar, IMAGES, label, {}, KEY), r"one number per image, \(B,\)"),
        (lambda: evaluate(scalar, IMAGES, BOUNDS, {}, KEY), "need a `success` of your own"),
        (lambda: perturb(attack, scalar, KEY, IMAGES, BOUNDS), "need a `success` of your own"),
        (lambda: perturb(CLIMB, scalar, KEY, IMAGES, label), "give the attack a `loss` of your"),
        (
            lambda: evaluate(
                scalar, IMAGES, BOUNDS, {"a": DeepFool(Linf(1.0))}, KEY, success=above
            ),
            "one number per image",
        ),
        (
            lambda: evaluate(scalar, IMAGES, BOUNDS, {"s": Square()}, KEY, success=above),
            "one number per image",
        ),
        (
            lambda: evaluate(scalar, IMAGES, BOUNDS, {}, KEY, success=ahead),
            r"must return one bool .* it returned ShapeDtypeStruct\(shape=\(\), dtype=float32",
        ),
        (
            lambda: evaluate(scalar, IMAGES, BOUNDS, {}, KEY, success=lambda out, y: bool(out > y)),
            "success.* fails on an output of .* leaves JAX",
        ),
        (
            lambda: evaluate(scalar, IMAGES, BOUNDS, {}, KEY, success=lambda out, y: out["a"] > y),
            "success.* fails on an output of .*TypeError",
        ),
        (
            lambda: perturb(MultiTargetedPGD(), scalar, KEY, IMAGES, BOUNDS, success=above),
            "MultiTargeted goes to classes",
        ),
        (lambda: MaxMargin().fit(scalar, IMAGES, label), "one number per image"),
        (
            lambda: evaluate(scalar, IMAGES, BOUNDS * np.nan, {}, KEY, success=above),
            "labels hold NaN",
        ),
        (
            lambda: evaluate(scalar, IMAGES, np.full(N, 2**40), {}, KEY, success=above),
            r"labels must lie in \[-2\^31, 2\^31\)",
        ),
        (
            lambda: evaluate(scalar, IMAGES, BOUNDS[:3], {}, KEY, success=above),
            "labels must be 12 numbers or arrays",
        ),
        (
            lambda: evaluate(scalar, IMAGES, ["a"] * N, {}, KEY, success=above),
            "labels must be 12 numbers or arrays",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            ask()


def test_one_logit_is_refused_with_how_to_make_two():
    labels = (scalar(IMAGES) > 0).astype(int)
    one = lambda x: scalar(x)[:, None]  # noqa: E731
    for ask in (
        lambda: evaluate(one, IMAGES, labels, {}, KEY),
        lambda: curve(one, IMAGES, labels, CLIMB, [0.1], KEY),
        lambda: perturb(CLIMB, one, KEY, IMAGES, labels),
        lambda: zero_gradient(one, IMAGES, labels, PGD(), KEY),
        lambda: CLIMB(lambda x: one(x[None])[0], KEY, jnp.asarray(IMAGES[0]), 0),
    ):
        with pytest.raises(ValueError, match=r"\(B, 1\).* return jnp.stack\(\[jnp.zeros_like"):
            ask()
    two = lambda x: jnp.stack([jnp.zeros(len(x)), scalar(x)], -1)  # noqa: E731
    report = evaluate(two, IMAGES, labels, {"a": own(CLIMB, loss=margin)}, KEY, diagnose=False)
    np.testing.assert_array_equal(
        report.examples["a"]["fooled"], np.abs(scalar(IMAGES)) < EPS * np.abs(W).sum()
    )
