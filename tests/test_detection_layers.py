"""Mahalanobis, LID and their logistic combination against NumPy and scikit-learn in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MinMaxScaler
from watched import CLASSES, FEATURES, IMAGES, LABELS, MODEL

from robustjax.detection import LID, Mahalanobis, auc, combine, scores
from robustjax.detection.detector import over_images
from robustjax.detection.gaussian import fit_gaussian, log_density
from robustjax.detection.intrinsic_dimension import LARGEST, lid

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


def test_lid_is_the_formula_in_every_layer():
    detector = LID(k=5, references=12, minibatches=2, seed=4)
    drawn = np.random.default_rng(4).permutation(60)[:24].reshape(2, 12)
    found = by_layer(detector.fit(MODEL, IMAGES, LABELS))
    for i, layer in enumerate(FEATURES):
        a = layer.reshape(60, -1).astype(np.float64)
        for n in range(60):
            values = []
            for minibatch in drawn:
                others = a[[m for m in minibatch if m != n]]
                r = np.sort(np.linalg.norm(others - a[n], axis=-1))[:5]
                values.append(-1 / np.mean(np.log(r / r[-1])))
            assert found[n, i] == pytest.approx(-np.mean(values), rel=1e-3)


@pytest.mark.parametrize("dimension", [1, 2, 8])
def test_lid_of_known_ratios(dimension):
    """Distances (i / n)^(1 / d) have log-ratios log(k / i) / d, so the LID is d over their mean."""
    ranks = np.arange(1, 51)
    squares = jnp.asarray((ranks / 50) ** (2 / dimension), jnp.float32)
    expected = dimension / np.mean(np.log(20 / ranks[:20]))
    assert lid(squares[::-1], 20) == pytest.approx(expected, rel=1e-4)
    assert lid(9 * squares, 20) == pytest.approx(expected, rel=1e-4)
    twin = jnp.concatenate([jnp.zeros(1), squares])
    assert lid(twin, 20) == pytest.approx(expected, rel=1e-4)


def test_lid_of_points_in_a_ball_is_its_dimension():
    directions = RNG.normal(size=(5000, 3))
    radii = RNG.random((5000, 1)) ** (1 / 3)
    points = radii * directions / np.linalg.norm(directions, axis=1)[:, None]
    squares = jnp.asarray((points**2).sum(1), jnp.float32)
    assert lid(squares, 500) == pytest.approx(3, rel=4 / np.sqrt(500))


@pytest.mark.parametrize("squares", [[0.0] * 4, [1.0] * 4, [0, 0, 0, 2.0], [0, 1e-30, 1e30, 1e30]])
def test_lid_of_zero_and_equal_distances_is_finite(squares):
    value, gradient = jax.value_and_grad(lid)(jnp.asarray(squares), 3)
    assert 0 < value <= LARGEST * (1 + 1e-6) and np.isfinite(gradient).all()


def test_combination_is_scikit_learns_on_scaled_statistics():
    parts = [Mahalanobis().fit(MODEL, IMAGES, LABELS), LID(5, 12).fit(MODEL, IMAGES, LABELS)]
    bad = np.clip(IMAGES + RNG.uniform(-0.4, 0.4, IMAGES.shape), 0, 1).astype(np.float32)
    combined = combine(parts, IMAGES[:30], bad[:30])
    both = np.concatenate([IMAGES[:30], bad[:30]])
    table = np.concatenate([by_layer(part, both) for part in parts], 1).astype(np.float64)
    truth = np.repeat([1, 0], 30)
    scaled = MinMaxScaler().fit_transform(table)
    expected = LogisticRegression().fit(scaled, truth).decision_function(scaled)
    np.testing.assert_allclose(scores(combined, both), expected, atol=1e-3)
    assert auc(scores(combined, IMAGES[30:]), scores(combined, bad[30:])) > 0.95


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="100 reference images, got 60"):
        LID().fit(MODEL, IMAGES, LABELS)
    with pytest.raises(ValueError, match="more than 20"):
        LID(references=20)
    with pytest.raises(ValueError, match="class 2"):
        Mahalanobis().fit(MODEL, IMAGES[LABELS < 2], LABELS[LABELS < 2])
    with pytest.raises(ValueError, match="do not vary"):
        fit_gaussian(np.ones((4, 2)), np.array([0, 1, 0, 1]), 2)
