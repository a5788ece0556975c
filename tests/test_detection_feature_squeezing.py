"""Squeezers against NumPy and SciPy, and the change they make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import median_filter
from scipy.special import softmax
from watched import IMAGES, LABELS, LOGITS, MODEL, WEIGHTS, network

from robustjax.detection import BitDepth, FeatureSqueezing, MedianSmoothing, NonLocalMeans, scores


def probabilities(images, temperature=1.0):
    return softmax(np.asarray(network(WEIGHTS, images)["logits"], np.float64) / temperature, -1)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_median_smoothing_is_scipys(size):
    x = np.random.default_rng(size).random((7, 6, 3)).astype(np.float32)
    expected = median_filter(x, size=(size, size, 1), mode="reflect")
    np.testing.assert_array_equal(MedianSmoothing(size)(x), expected)


def test_bit_depth_has_its_levels_and_passes_the_gradient():
    x = jnp.linspace(0, 1, 101).reshape(101, 1, 1)
    assert np.unique(BitDepth(1)(x)).tolist() == [0, 1]
    np.testing.assert_allclose(BitDepth(3)(x), np.rint(7 * np.asarray(x)) / 7, atol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda x: BitDepth(3)(x).sum())(x), 1)


@pytest.mark.parametrize(("shape", "search", "patch"), [((9, 7, 3), 5, 3), ((8, 8, 1), 13, 1)])
def test_non_local_means_is_the_weighted_mean_of_the_window(shape, search, patch):
    x, h = np.random.default_rng(0).random(shape).astype(np.float32), 0.3
    reach, edge = search // 2, patch // 2
    pad = [(reach + edge,) * 2] * 2 + [(0, 0)]
    padded = np.pad(x.astype(np.float64), pad, mode="symmetric")
    expected = np.zeros(shape)
    for row, column in np.ndindex(shape[:2]):
        total = weights = 0
        here = padded[row + reach :, column + reach :][:patch, :patch]
        for i, j in np.ndindex(search, search):
            there = padded[row + i :, column + j :][:patch, :patch]
            weight = np.exp(-((here - there) ** 2).mean() / h**2)
            total, weights = total + weight * there[edge, edge], weights + weight
        expected[row, column] = total / weights
    squeeze = NonLocalMeans(search, patch, h)
    np.testing.assert_allclose(squeeze(x), expected, atol=1e-6)
    np.testing.assert_allclose(NonLocalMeans(search, patch, 1e-4)(x), x, atol=1e-4)
    slope = jax.grad(lambda z: squeeze(z).sum())(x)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0.1
    with pytest.raises(ValueError, match="odd"):
        NonLocalMeans(search + 1)


def test_squeezing_is_the_largest_change_of_the_probabilities():
    detector = FeatureSqueezing((BitDepth(3), MedianSmoothing(2)))
    found = scores(detector.fit(MODEL, IMAGES, LABELS), IMAGES, batch_size=16)
    p, fewer = probabilities(IMAGES), np.rint(7 * IMAGES) / 7
    smooth = median_filter(IMAGES, size=(1, 2, 2, 1), mode="reflect")
    changes = [np.abs(p - probabilities(view)).sum(-1) for view in (fewer, smooth)]
    assert len(set(np.argmax(changes, 0))) == 2
    np.testing.assert_allclose(found, -np.max(changes, 0), rtol=1e-4, atol=1e-5)


def test_the_network_is_the_one_that_is_watched():
    np.testing.assert_allclose(probabilities(IMAGES), softmax(LOGITS, -1), atol=1e-5)
