"""`perturb` over any number of images, and what it refuses."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import (
    APGD,
    FGSM,
    PGD,
    CarliniWagnerLinf,
    HopSkipJump,
    Restarts,
    Square,
    perturb,
)
from robustjax.attacks._core.success import fooled
from robustjax.attacks._engine.examples import check_examples
from robustjax.attacks._engine.judgement import judge
from robustjax.attacks._engine.ledger import Ledger
from robustjax.attacks._engine.model import check_model
from robustjax.attacks._engine.setting import Setting
from robustjax.config import config
from robustjax.evaluation import curve, detect, evaluate, transfer, zero_gradient
from robustjax.losses import targeted_dlr
from robustjax.threats import Linf
from robustjax.typing import Threat

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(11, 4, 4, 1)).astype(np.float32)
W = RNG.normal(size=(16, 5)).astype(np.float32)
TRACES = []


def batch(w, x):
    TRACES.append(x.shape)
    return x.reshape(len(x), -1) @ w


MODEL = jax.tree_util.Partial(batch, W)
LABELS = (IMAGES.reshape(11, -1) @ W).argmax(-1)
ATTACK = FGSM(Linf(0.1))


def run(attack=ATTACK, model=MODEL, images=IMAGES, labels=LABELS, **more):
    return perturb(attack, model, jax.random.key(0), images, labels, **more)


def test_any_number_of_images_is_padded_to_full_tiles():
    whole = run()
    for n in (1, 2, 7, 10):
        np.testing.assert_array_equal(run(images=IMAGES[:n], labels=LABELS[:n]), whole[:n])


def test_keys_follow_the_indices():
    attack = PGD(Linf(0.1), steps=0)  # the random start alone
    picked = [4, 9]
    alone = run(attack, images=IMAGES[picked], labels=LABELS[picked], indices=picked)
    np.testing.assert_array_equal(alone, run(attack)[picked])
    other = run(attack, images=IMAGES[picked], labels=LABELS[picked])
    assert not np.array_equal(alone, other)


def test_uint8_is_divided_by_255():
    images = RNG.integers(0, 256, (4, 4, 4, 1)).astype(np.uint8)
    y = LABELS[:4]
    as_floats = run(images=images.astype(np.float32) / 255, labels=y)
    np.testing.assert_array_equal(run(images=images, labels=y), as_floats)


def test_a_closure_is_compiled_once():
    def closure(x):
        TRACES.append(x.shape)
        return x.reshape(len(x), -1) @ jnp.asarray(W)

    first = run(model=closure)
    traced = len(TRACES)
    np.testing.assert_array_equal(run(model=closure), first)
    assert len(TRACES) == traced
    np.testing.assert_allclose(first, run(), atol=1e-6)


def test_survivors_are_packed_into_one_static_shape():
    run(Restarts(PGD(Linf(0.02)), 5), batch_size=8)
    traced = len(TRACES)
    run(Restarts(PGD(Linf(0.05)), 8), batch_size=8)
    assert len(TRACES) == traced


def test_targets_ride_along():
    target = LABELS, (LABELS + 2) % 5
    z = run(PGD(Linf(0.1), loss=targeted_dlr), targets=target[1])
    gap = lambda x: (  # noqa: E731
        lambda out: out[np.arange(11), target[1]] - out[np.arange(11), LABELS]
    )(x.reshape(11, -1) @ W)
    assert (gap(z) > gap(IMAGES)).all()


def test_a_model_may_return_any_pytree():
    def features(x):
        return {"logits": x.reshape(len(x), -1) @ jnp.asarray(W), "mean": x.mean((1, 2, 3))}

    z = run(PGD(Linf(0.1), loss=brightness), model=features)
    np.testing.assert_allclose(z, np.minimum(IMAGES + 0.1, 1), atol=1e-6)
    with pytest.raises(ValueError, match="the model has 5 classes, but there is a label 5"):
        run(model=features, labels=np.append(LABELS[1:], 5))


def brightness(output, target):
    return output["mean"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[0], "labels must be 4 integers, one per image"),
        (IMAGES[:0], r"N >= 1"),
        (IMAGES * 255, "divide by 255"),
        (IMAGES - 0.5, "normalisation inside the model"),
        (np.where(IMAGES > 0.9, np.nan, IMAGES), "NaN or infinite"),
        ((IMAGES * 255).astype(np.int32), "floats in"),
    ],
)
def test_unusable_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        run(images=images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:5], "11 integers"),
        (LABELS.astype(np.float32), "11 integers"),
        (np.eye(5)[LABELS], "11 integers"),
        (LABELS - 5, "must lie in"),
        (LABELS + 5, "the model has 5 classes"),
    ],
)
def test_unusable_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        run(labels=labels)


def test_unusable_indices_targets_and_models_are_refused():
    with pytest.raises(ValueError, match="indices must be 11 integers"):
        run(indices=np.arange(3))
    with pytest.raises(ValueError, match=r"indices must lie in \[0, 2\^31\), got 4294967296"):
        run(indices=np.arange(len(LABELS)) + 2**32 - len(LABELS) + 1)
    with pytest.raises(ValueError, match="leading axis 11"):
        run(targets=np.arange(3))
    with pytest.raises(ValueError, match="must take a batch"):
        run(model=lambda x: x.mean((1, 2, 3)) @ jnp.ones(1))


@pytest.mark.parametrize(
    "attack",
    [APGD(steps=2), HopSkipJump(queries=9), CarliniWagnerLinf(steps=2, rounds=1)],
    ids=lambda attack: type(attack).__name__,
)
def test_where_jax_computes_in_64_bits_images_have_32(attack):
    with jax.enable_x64(True):
        assert run(attack).dtype == np.float32


KEYS = (jax.random.PRNGKey(0), jax.random.key(0))


def test_unusable_keys_batch_sizes_and_partials_are_refused():
    for key in (0, jax.random.split(jax.random.key(0), 2)):
        with pytest.raises(ValueError, match="key must be a PRNG key"):
            perturb(ATTACK, MODEL, key, IMAGES, LABELS)
    for size in (0, 2.5, "8"):
        with pytest.raises(ValueError, match=r"batch_size must (be a whole number|lie in)"):
            run(batch_size=size)
    with pytest.raises(ValueError, match="arrays and numbers only, not str"):
        run(model=jax.tree_util.Partial(batch, {"w": W, "name": "linear"}))


def test_keys_of_both_kinds_are_taken():
    old, new = (perturb(ATTACK, MODEL, k, IMAGES, LABELS) for k in KEYS)
    np.testing.assert_array_equal(old, new)


def test_models_are_forgotten_with_the_caches():
    """Programs and shapes of a closure hold its weights until `jax.clear_caches`."""

    def make():
        w = W + 1

        def closure(x):
            return x.reshape(len(x), -1) @ w

        return closure, weakref.ref(w)

    model, alive = make()
    run(Restarts(PGD(Linf(0.1), steps=1), 2), model=model)
    evaluate(model, IMAGES, LABELS, {"pgd": PGD(Linf(0.1), steps=1)}, KEYS[0])
    del model
    jax.clear_caches()
    gc.collect()
    assert alive() is None


@config
class Broken:
    """Adds an amount to every pixel, whatever the ball."""

    threat: Threat
    amount: float

    def __call__(self, logits_fn, key, x, y, target=None):
        return x + self.amount


@pytest.mark.parametrize(
    ("images", "amount", "message"),
    [
        (0.4 * IMAGES, 0.2, "distance of 0.2"),
        (IMAGES, 0.05, "outside their bounds"),
    ],
)
def test_an_attack_that_cheats_is_caught(images, amount, message):
    with pytest.raises(RuntimeError, match=f"Broken returned .*{message}"):
        run(Broken(Linf(0.1), amount), images=images)


def test_nan_logits_are_never_a_right_prediction():
    examples = check_examples(IMAGES, LABELS)
    model = check_model(jax.tree_util.Partial(batch, W * np.nan), examples)
    said = judge(Setting(model, jax.random.key(0), fooled, 11, Ledger()), examples)
    assert (said.prediction == -1).all() and said.won.all()


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda: PGD, "an attack is an object such as PGD"),
        (lambda: Linf(0.1), "an attack is an object such as PGD"),
        (lambda: PGD(0.1), "threat must be a Threat"),
        (lambda: lambda logits_fn, key, x, y, target=None: x, r"jax\.tree_util\.Partial\(function"),
    ],
)
def test_what_is_no_attack_is_refused(attack, message):
    one = {"a": MODEL}
    for ask in (
        run,
        lambda attack: evaluate(MODEL, IMAGES, LABELS, {"a": attack}, KEYS[1]),
        lambda attack: curve(MODEL, IMAGES, LABELS, attack, [0.1], KEYS[1]),
        lambda attack: zero_gradient(MODEL, IMAGES, LABELS, attack, KEYS[1]),
        lambda attack: transfer(attack, one, one, IMAGES, LABELS, KEYS[1]),
        lambda attack: detect(MODEL, one, IMAGES, LABELS, IMAGES, {"a": attack}, KEYS[1]),
    ):
        with pytest.raises(ValueError, match=message):
            ask(attack())


def test_a_gradient_is_diagnosed_where_there_is_one():
    with pytest.raises(ValueError, match="Square follows no gradient"):
        zero_gradient(MODEL, IMAGES, LABELS, Square(), KEYS[1])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: np.asarray(x).reshape(len(x), -1) @ W, "must be a JAX function of a batch"),
        (lambda x: x @ jnp.ones((7, 5)), r"on inputs of shape \(1, 4, 4, 1\) it fails: TypeError"),
    ],
)
def test_a_model_that_fails_says_on_what(model, message):
    with pytest.raises(ValueError, match=message):
        run(model=model)
