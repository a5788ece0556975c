"""Logits, features and more in what a model returns, by name or by place."""

import collections
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax import outputs
from robustjax.attacks import FGSM
from robustjax.evaluation import evaluate
from robustjax.threats import Linf

LOGITS, FEATURES = np.arange(3.0), np.arange(5.0)


class Backwards(NamedTuple):
    features: jax.Array
    logits: jax.Array


class Unnamed(NamedTuple):
    embedding: jax.Array
    scores: jax.Array


@dataclasses.dataclass
class Record:
    features: jax.Array
    logits: jax.Array


@pytest.mark.parametrize(
    "output",
    [
        Backwards(FEATURES, LOGITS),
        Record(FEATURES, LOGITS),
        {"features": FEATURES, "logits": LOGITS},
        collections.OrderedDict(features=FEATURES, logits=LOGITS),
        (LOGITS, FEATURES),
        [LOGITS, FEATURES],
    ],
    ids=lambda output: type(output).__name__,
)
def test_names_count_before_places(output):
    np.testing.assert_array_equal(outputs.logits_of(output), LOGITS)
    np.testing.assert_array_equal(outputs.features_of(output), FEATURES)
    assert outputs.num_classes(output) == 3


def test_logits_stand_for_themselves():
    assert outputs.logits_of(LOGITS) is LOGITS
    with pytest.raises(ValueError, match="returns logits alone"):
        outputs.layers_of(LOGITS)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (Unnamed(FEATURES, LOGITS), "returns no logits"),
        ({"scores": LOGITS}, "returns no logits"),
        ((), "returns no logits"),
        (np.zeros(0), "returns no logits"),
        (np.float32(0.5), r"one number per image, \(B,\)"),
        (np.zeros(1), r"one number per image, \(B, 1\).*jnp.stack"),
        (np.int32(2), "returns classes"),
        (np.zeros((4, 4, 2)), r"returns \(B, 4, 4, 2\)"),
    ],
)
def test_an_output_without_logits_says_what_it_is(output, message):
    assert outputs.num_classes(output) == 0 and not outputs.has_logits(output)
    with pytest.raises(ValueError, match=f"{message}.*a `loss` of your own"):
        outputs.logits_of(output)


def test_attacks_and_networks_read_a_named_tuple_by_name():
    images = np.random.default_rng(0).uniform(size=(6, 2, 2, 1)).astype(np.float32)
    weights = np.float32([[1, -1, 0], [0, 1, -1], [-1, 0, 1], [1, 1, -2]])

    def model(x):
        return Backwards(jnp.tile(x.reshape(len(x), -1), 3), x.reshape(len(x), -1) @ weights)

    labels, attack = model(images).logits.argmax(-1), {"fgsm": FGSM(Linf(0.1))}
    named = evaluate(model, images, labels, attack, jax.random.key(0), diagnose=False)
    alone = evaluate(
        lambda x: model(x).logits, images, labels, attack, jax.random.key(0), diagnose=False
    )
    assert named.clean == 1
    np.testing.assert_array_equal(named.adversarial["fgsm"], alone.adversarial["fgsm"])
    wrong = lambda x: Unnamed(*model(x))  # noqa: E731
    with pytest.raises(ValueError, match=r"returns no logits.*\{'logits'"):
        evaluate(wrong, images, labels, attack, jax.random.key(0))
