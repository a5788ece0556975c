"""Mahalanobis against NumPy and scikit-learn in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance
from watched import CLASSES, FEATURES, IMAGES, LABELS, MODEL

from robustjax.detection import Mahalanobis
from robustjax.detection.detector import over_images
from robustjax.detection.gaussian import fit_gaussian, log_density

RNG = np.random.default_rng(0)


def by_layer(fitted, images=IMAGES):
    return over_images(lambda fitted, x: fitted.statistics(x), fitted, images, 16)


def test_mahalanobis_is_the_formula_in_every_layer():
    found = by_layer(Mahalanobis().fit(MODEL, IMAGES, LABELS))
    assert found.shape == (60, 2)
    for i, layer in enumerate(FEATURES):
        f = layer.reshape(60, -1, layer.shape[-1]).astype(np.float64).mean(1)
        means = np.stack([f[k == LABELS].mean(0) for k in range(CLASSES)])
        covariance = EmpiricalCovariance(assume_centered=True).fit(f - means[LABELS])
        expected = [-covariance.mahalanobis(f - mean) / 2 for mean in means]
        np.testing.assert_allclose(found[:, i], np.max(expected, 0), rtol=1e-3)


def test_mahalanobis_of_a_gaussian_is_its_squared_norm():
    scale = np.diag([3.0, 0.1]) @ np.array([[1, 0.5], [0, 1]])
    means = np.array([[5.0, 0.0], [-5.0, 2.0]])
    labels = np.repeat([0, 1], 50_000)
    normal = RNG.normal(size=(100_000, 2))
    gaussian = fit_gaussian(means[labels] + normal @ scale, labels, 2)
    for z in ([0.0, 0.0], [1.0, -1.0], [0.0, 2.0]):
        x = jnp.asarray(means[1] + z @ scale, jnp.float32)
        assert log_density(gaussian, x) == pytest.approx(-np.dot(z, z) / 2, rel=0.02, abs=1e-3)


def test_mahalanobis_does_not_see_linear_maps_nor_dead_features():
    f = RNG.normal(size=(50, 3)).astype(np.float32)
    labels = np.arange(50) % 2
    mapped = np.concatenate([f @ RNG.normal(size=(3, 3)), np.full((50, 1), 7.0)], 1)
    plain, other = fit_gaussian(f, labels, 2), fit_gaussian(mapped, labels, 2)
    assert other.whitening.shape == (3, 4)
    for a, b in zip(f[:5], mapped[:5].astype(np.float32), strict=True):
        assert float(log_density(plain, a)) == pytest.approx(float(log_density(other, b)), rel=1e-3)


def test_images_of_every_class_that_vary_are_needed():
    with pytest.raises(ValueError, match="class 2"):
        Mahalanobis().fit(MODEL, IMAGES[LABELS < 2], LABELS[LABELS < 2])
    with pytest.raises(ValueError, match="do not vary"):
        fit_gaussian(np.ones((4, 2)), np.array([0, 1, 0, 1]), 2)
