"""Distances to a reconstruction against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from watched import AUTOENCODER, IMAGES, LABELS, MODEL, WEIGHTS, network

from robustjax.detection import ReconstructionDivergence, ReconstructionError, scores
from robustjax.detection.reconstruction import divergence


def probabilities(images, temperature=1.0):
    return softmax(np.asarray(network(WEIGHTS, images)["logits"], np.float64) / temperature, -1)


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


def test_an_autoencoder_must_hold_its_weights_and_keep_the_shape():
    with pytest.raises(ValueError, match="Partial"):
        ReconstructionError(lambda images: images).fit(MODEL, IMAGES, LABELS)
    with pytest.raises(ValueError, match="makes images"):
        ReconstructionError(Partial(lambda images: images[:, :2])).fit(MODEL, IMAGES, LABELS)
