"""BPDA: the values of one function, the gradient of another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from robustjax.attacks import BIM, bpda, perturb
from robustjax.threats import Linf

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(8, 8, 1)).astype(np.float32)
DCT = scipy.fft.dct(np.eye(8), axis=0, norm="ortho").astype(np.float32)


def quantise(x):
    """Eight levels of grey."""
    return jnp.round(7 * x) / 7


def jpeg(x):
    """One block of JPEG: the cosine coefficients rounded to multiples of 0.3."""
    coefficients = jnp.einsum("ij,jkc,lk->ilc", DCT, x, DCT)
    return jnp.einsum("ij,ilc,lk->jkc", DCT, 0.3 * jnp.round(coefficients / 0.3), DCT)


@pytest.mark.parametrize("forward", [quantise, jpeg])
def test_values_of_the_defence_and_a_straight_through_gradient(forward):
    direction = RNG.normal(size=X.shape).astype(np.float32)

    def inner(function):
        return jax.grad(lambda x: jnp.sum(direction * function(x)))(X)

    np.testing.assert_array_equal(bpda(forward)(X), forward(X))
    assert np.abs(np.asarray(forward(X)) - X).max() > 0.01
    np.testing.assert_array_equal(inner(forward), np.zeros_like(X))
    np.testing.assert_array_equal(inner(bpda(forward)), direction)


def test_the_gradient_is_that_of_the_stand_in_at_the_same_point():
    smooth = lambda x: jnp.tanh(3 * x)  # noqa: E731
    through = jax.grad(lambda x: jnp.sum(bpda(quantise, smooth)(x) ** 2))(X)
    cotangent = 2 * quantise(X)
    np.testing.assert_allclose(through, jax.vjp(smooth, X)[1](cotangent)[0], rtol=1e-5)


def test_pytrees_pass():
    def forward(tree):
        return {"a": jnp.floor(tree["a"]), "b": tree["b"]}

    tree = {"a": jnp.float32(1.5), "b": jnp.float32(2.0)}
    gradient = jax.grad(lambda t: 3 * bpda(forward)(t)["a"] * t["b"])(tree)
    assert float(gradient["a"]) == 6 and float(gradient["b"]) == 3


def test_a_weak_type_agrees_with_a_strong_one():
    step = bpda(lambda x: jnp.where(x.sum() > 0, 1.0, 0.0), jnp.sum)
    np.testing.assert_array_equal(jax.grad(step)(jnp.ones(3)), 1)


def test_different_shapes_or_dtypes_are_refused():
    with pytest.raises(ValueError, match="agree in shape and dtype"):
        bpda(lambda x: x[:2])(X)
    with pytest.raises(ValueError, match="agree in shape and dtype"):
        bpda(lambda x: jnp.round(x).astype(int))(X)


def test_a_quantised_model_is_blind_without_it_and_as_weak_as_its_inside_with_it():
    """A linear model behind a quantiser whose levels the attack can cross. Weights are data."""
    images = RNG.integers(1, 7, (12, 4, 4, 1)).astype(np.float32) / 7
    w = RNG.normal(size=(16, 2)).astype(np.float32)
    bias = -np.median(images.reshape(12, -1) @ w, axis=0)

    def defended(quantiser, w, x):
        # The stand-in closes over a weight, as a learned one would.
        scale = 1 + 0 * w.sum()
        seen = jax.vmap(bpda(quantise, lambda x: scale * x) if quantiser else quantise)(x)
        return seen.reshape(len(x), -1) @ w + bias[None]

    y = (images.reshape(12, -1) @ w + bias).argmax(-1)
    slope = (w[:, 1] - w[:, 0]) * (1 - 2 * y)[:, None]
    gain = (1 / 7) * np.abs(slope).sum(1)  # one level up or down at every pixel
    gap = np.abs(np.diff(images.reshape(12, -1) @ w + bias, axis=1))[:, 0]
    attack, key = BIM(Linf(1.2 / 7), 3), jax.random.key(0)
    blind = jax.tree_util.Partial(lambda w, x: defended(False, w, x), w)
    np.testing.assert_array_equal(perturb(attack, blind, key, images, y), images)
    seeing = jax.tree_util.Partial(lambda w, x: defended(True, w, x), w)
    after = defended(False, w, perturb(attack, seeing, key, images, y)).argmax(-1)
    np.testing.assert_array_equal(after != y, gap < gain)
    assert (after != y).any()
