"""Keys of every kind become threefry keys, whose draws do not depend on the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.attacks import Randomized, Square, perturb
from robustjax.evaluation import curve, evaluate, transfer
from robustjax.keys import KIND, seeded, threefry
from robustjax.threats import Linf

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(12, 6, 6, 1)).astype(np.float32)
W = RNG.normal(size=(36, 3)).astype(np.float32)
LABELS = (IMAGES.reshape(12, -1) @ W).argmax(-1)
SQUARE = Square(Linf(0.05), queries=20)
MODEL = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, W)


def test_bits_do_not_depend_on_the_batch_size():
    key = jax.random.key(1, impl="rbg")
    asked = SQUARE, MODEL, key, IMAGES, LABELS
    whole = perturb(*asked, batch_size=12)
    np.testing.assert_array_equal(perturb(*asked, batch_size=4), whole)
    raw = perturb(SQUARE, MODEL, jax.random.key_data(key), IMAGES, LABELS, batch_size=4)
    np.testing.assert_array_equal(raw, whole)


def test_every_kind_and_number_makes_a_key_of_its_own():
    kinds = KIND, "rbg", "unsafe_rbg"
    found = [threefry(jax.random.key(n, impl=kind)) for kind in kinds for n in range(3)]
    data = {tuple(map(int, jax.random.key_data(key))) for key in found}
    assert len(data) == 6 and {jax.random.key_impl(key) for key in found} == {KIND}


def test_everything_that_takes_a_key_takes_it_so():
    key = jax.random.key(1, impl="rbg")
    same = threefry(key)
    for ask in (
        lambda key: evaluate(MODEL, IMAGES, LABELS, {"s": SQUARE}, key).adversarial["s"],
        lambda key: curve(MODEL, IMAGES, LABELS, SQUARE, [0.05], key)["accuracy"],
        lambda key: transfer(SQUARE, {"a": MODEL}, {"a": MODEL}, IMAGES, LABELS, key).fooled["a"],
    ):
        jax.tree.map(np.testing.assert_array_equal, ask(key), ask(same))
    assert jax.random.key_impl(Randomized(lambda key, x: x, key).key) == KIND


def test_a_seed_is_the_same_whatever_kind_is_the_default():
    want = jax.random.normal(seeded(3))
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(jax.random.normal(seeded(3)), want)


def test_what_is_no_key_is_refused():
    for key in (0, None, jnp.zeros(2), jax.random.split(jax.random.key(0), 2), np.zeros(3, "u4")):
        with pytest.raises(ValueError, match="key must be one PRNG key"):
            threefry(key)
