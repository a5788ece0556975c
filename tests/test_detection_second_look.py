"""Detectors that ask the model again: squeezed, reconstructed, drawn anew; against NumPy, SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.ndimage import median_filter
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from watched import AUTOENCODER, DROPOUT, IMAGES, LABELS, LOGITS, MODEL, WEIGHTS, dropout, network

from robustjax.attacks import Randomized
from robustjax.detection import (
    BitDepth,
    FeatureSqueezing,
    MedianSmoothing,
    NonLocalMeans,
    ReconstructionDivergence,
    ReconstructionError,
    Uncertainty,
    scores,
    with_score,
)
from robustjax.detection.reconstruction import divergence


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


def test_reconstruction_is_the_formula():
    seen = np.asarray(AUTOENCODER(IMAGES))
    for p in (1, 2):
        found = scores(ReconstructionError(AUTOENCODER, p).fit(MODEL, IMAGES, LABELS), IMAGES)
        np.testing.assert_allclose(found, -(np.abs(IMAGES - seen) ** p).mean((1, 2, 3)), rtol=1e-4)
    found = scores(ReconstructionDivergence(AUTOENCODER, 2.0).fit(MODEL, IMAGES, LABELS), IMAGES)
    distance = jensenshannon(probabilities(IMAGES, 2), probabilities(seen, 2), axis=-1)
    np.testing.assert_allclose(found, -(distance**2), rtol=1e-3, atol=1e-6)


def test_the_divergence_of_extreme_logits():
    certain, other = jnp.array([0.0, -200]), jnp.array([-200.0, 0])
    assert divergence(certain, other) == pytest.approx(np.log(2), rel=1e-6)
    assert divergence(certain, certain) == 0
    assert np.isfinite(jax.grad(divergence)(certain, other)).all()


def test_uncertainty_is_the_variance_over_the_draws():
    found = scores(Uncertainty(draws=6).fit(DROPOUT, IMAGES, LABELS), IMAGES, batch_size=16)
    keys = jax.random.split(jax.random.clone(DROPOUT.key), 6)
    draws = [softmax(np.asarray(dropout(WEIGHTS, k, IMAGES)["logits"], float), -1) for k in keys]
    np.testing.assert_allclose(found, -np.var(draws, 0).sum(-1), rtol=1e-3, atol=1e-6)


def test_uncertainty_is_of_the_draws_and_its_model_predicts_without_them():
    def both(weights, key, images):
        drawn = dropout(weights, key, images)["logits"]
        return {"logits": network(weights, images)["logits"], "drawn": drawn}

    alone, beside = (
        Uncertainty(draws=4).fit(model, IMAGES, LABELS)
        for model in (DROPOUT, Randomized(Partial(both, WEIGHTS)))
    )
    drawn, free = (jax.jit(with_score(fitted))(IMAGES) for fitted in (alone, beside))
    np.testing.assert_allclose(drawn["score"], free["score"], rtol=1e-4)
    np.testing.assert_allclose(free["logits"], LOGITS, atol=1e-5)
    assert np.abs(drawn["logits"] - LOGITS).max() > 0.1


def test_uncertainty_of_a_model_without_randomness_is_zero_or_refused():
    constant = Randomized(Partial(lambda weights, key, images: network(weights, images), WEIGHTS))
    found = scores(Uncertainty(draws=4).fit(constant, IMAGES, LABELS), IMAGES)
    np.testing.assert_allclose(found, 0, atol=1e-12)
    with pytest.raises(ValueError, match="Randomized"):
        Uncertainty().fit(MODEL, IMAGES, LABELS)


def test_an_autoencoder_must_hold_its_weights_and_keep_the_shape():
    with pytest.raises(ValueError, match="Partial"):
        ReconstructionError(lambda images: images).fit(MODEL, IMAGES, LABELS)
    with pytest.raises(ValueError, match="makes images"):
        ReconstructionError(Partial(lambda images: images[:, :2])).fit(MODEL, IMAGES, LABELS)


def test_the_network_is_the_one_that_is_watched():
    np.testing.assert_allclose(probabilities(IMAGES), softmax(LOGITS, -1), atol=1e-5)
