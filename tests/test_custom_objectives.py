"""Objectives and success of the user's own, against a model that also returns a detector's score.

The classifier adds up all pixels along A, the detector only those of the second half. An attack of
the classifier alone moves all pixels and is detected; one that sees the detector moves the first
half, which is enough where the clean logits are small.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import (
    PGD,
    WorstOf,
    perturb,
    worst_of_losses,
)
from robustjax.attacks._core.success import fooled
from robustjax.attacks.starts import Zero
from robustjax.evaluation import evaluate
from robustjax.losses import margin
from robustjax.threats import Linf

N, EPS, THRESHOLD = 24, 0.1, 0.3
RNG = np.random.default_rng(0)
A = RNG.choice([-1.0, 1.0], 16).astype(np.float32)
B = np.where(np.arange(16) < 8, 0, A).astype(np.float32)
LABELS = np.arange(N) % 2
# All pixels together can move <A, x> by 1.6, the first half by 0.8, and the second, unnoticed, by
# 0.3: the classifier falls everywhere, unnoticed only where <A, x> starts at 0.5.
SMALL = np.arange(N) < 10
GAP = np.where(SMALL, 0.5, 1.3)
IMAGES = (0.5 + (2 * LABELS - 1)[:, None] * GAP[:, None] * (A - B) / 8).astype(np.float32)
IMAGES = IMAGES.reshape(N, 4, 4, 1)


def apply(weights, x):
    flat = x.reshape(len(x), -1) - 0.5
    along = flat @ weights["a"]
    return {"logits": jnp.stack([-along, along], -1), "score": jnp.abs(flat @ weights["b"])}


MODEL = jax.tree_util.Partial(apply, {"a": A, "b": B})


def evading(output, y):
    """Win against the classifier while the detector's score stays low."""
    return margin(output, y) - 5 * output["score"]


def unnoticed(output, y):
    return fooled(output, y) & (output["score"] < THRESHOLD)


PLAIN = PGD(Linf(EPS), steps=10, start=Zero(), loss=margin)
ADAPTIVE = dataclasses.replace(PLAIN, loss=evading)
ATTACKS = {
    "plain": PLAIN,
    "adaptive": ADAPTIVE,
    "worst": worst_of_losses(PLAIN, (margin, evading)),
}


def report(success, attacks=ATTACKS):
    return evaluate(
        MODEL, IMAGES, LABELS, attacks, jax.random.key(0), success=success, diagnose=False
    )


def test_the_plain_attack_is_detected_and_the_adaptive_one_is_not():
    found = report(unnoticed)
    assert found.clean == 1
    assert found.robust["plain"] == 1
    np.testing.assert_array_equal(found.examples["adaptive"]["fooled"], SMALL)
    scores = np.asarray(apply(MODEL.args[0], found.adversarial["plain"])["score"])
    assert (scores > THRESHOLD).all()
    scores = np.asarray(apply(MODEL.args[0], found.adversarial["adaptive"])["score"])
    assert (scores < THRESHOLD).all()


def test_without_the_detector_the_plain_attack_wins_everywhere():
    """A model of logits and more is attacked and judged by its logits."""
    assert report(fooled, {"plain": PLAIN}).robust["plain"] == 0


def test_a_set_of_objectives_is_judged_by_the_worst_of_them():
    found = report(unnoticed)
    np.testing.assert_array_equal(found.examples["worst"]["fooled"], SMALL)
    np.testing.assert_array_equal(found.examples["worst"]["stage"], np.where(SMALL, 1, -1))
    assert found.robust["worst"] == pytest.approx(1 - SMALL.mean())
    assert found.worst_case == pytest.approx(1 - SMALL.mean())


def test_an_ensemble_s_own_success_counts_when_it_is_called():
    """Stage 0 fools the classifier, but is noticed; the image is that of stage 1."""
    attack = WorstOf((PLAIN, ADAPTIVE), success=unnoticed)
    one = lambda x: jax.tree.map(lambda a: a[0], MODEL(x[None]))  # noqa: E731
    z = attack(one, jax.random.key(0), jnp.asarray(IMAGES[0]), LABELS[0])
    assert bool(unnoticed(one(z), LABELS[0]))
    staged = perturb(attack, MODEL, jax.random.key(0), IMAGES[:1], LABELS[:1])
    np.testing.assert_allclose(z, staged[0], atol=1e-6)


def test_each_objective_wins_where_it_can_and_the_union_counts():
    """Three classes, losses towards one class each: the closed form per class, and their union."""
    w = RNG.normal(size=(16, 3)).astype(np.float32)
    images = RNG.uniform(0.3, 0.7, (40, 4, 4, 1)).astype(np.float32)
    bias = -np.mean(images.reshape(40, -1) @ w, axis=0)
    z = images.reshape(40, -1) @ w + bias
    y = np.argmax(z, -1)

    def towards(j):
        return lambda logits, y: logits[j] - logits[y]

    losses = [towards(j) for j in range(3)]
    rows = np.arange(40)
    with np.errstate(invalid="ignore"):
        far = (z[rows, y, None] - z) / np.abs(w[:, y, None] - w[:, None]).sum(0)
    eps = float(np.nanmedian(far))
    attack = PGD(Linf(eps), start=Zero(), loss=losses[0])
    attacks = {str(j): dataclasses.replace(attack, loss=loss) for j, loss in enumerate(losses)}
    attacks["worst"] = worst_of_losses(attack, losses)
    model = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w + bias[None], w)
    found = evaluate(model, images, y, attacks, jax.random.key(0), diagnose=False)
    fallen = [found.examples[str(j)]["fooled"] for j in range(3)]
    for j in range(3):
        decided = (y != j) & (np.abs(far[:, j] - eps) > 1e-3 * eps)
        assert fallen[j][decided & (far[:, j] < eps)].all()
        assert decided.sum() > 10
    np.testing.assert_array_equal(found.examples["worst"]["fooled"], np.any(fallen, axis=0))
    assert max(map(np.sum, fallen)) < np.any(fallen, axis=0).sum() < 40
