"""K-density against a double loop and scikit-learn's KernelDensity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.neighbors import KernelDensity
from watched import CLASSES, FEATURES, IMAGES, LABELS, MODEL, PREDICTED

from robustjax.detection import KDensity, scores
from robustjax.detection.distances import CHUNK, squared_distances
from robustjax.detection.kernel_density import Kernels, draw_by_class

LAST = FEATURES[-1].astype(np.float64)


def test_scores_are_the_formula_in_the_predicted_class():
    detector = KDensity(sigma2=0.4, count=7, seed=3)
    found = scores(detector.fit(MODEL, IMAGES, LABELS), IMAGES, batch_size=16)
    chosen = draw_by_class(LABELS, CLASSES, 7, 3)
    assert not (PREDICTED == LABELS).all()  # else the true class would do as well
    for i, own in enumerate(PREDICTED):
        assert (LABELS[chosen[own]] == own).all() and len(chosen[own]) == 7
        squares = ((LAST[chosen[own]] - LAST[i]) ** 2).sum(-1)
        assert found[i] == pytest.approx(logsumexp(-squares / 0.4) - np.log(7), rel=1e-4, abs=1e-5)


def test_bandwidths_are_scikit_learns():
    uneven = slice(0, 47)
    fitted = KDensity.with_bandwidth(0.26).fit(MODEL, IMAGES[uneven], LABELS[uneven])
    found = scores(fitted, IMAGES)
    constant = -LAST.shape[-1] / 2 * np.log(2 * np.pi * 0.26**2)
    for k in np.unique(PREDICTED):
        reference = KernelDensity(bandwidth=0.26).fit(LAST[uneven][LABELS[uneven] == k])
        expected = reference.score_samples(LAST[k == PREDICTED]) - constant
        np.testing.assert_allclose(found[k == PREDICTED], expected, rtol=1e-4, atol=1e-4)


def density(z, points, sigma2=1 / 0.26):
    """Of a feature, with these kernels for class 0, which is predicted."""
    learned = Kernels(
        jnp.stack([jnp.asarray(points)] * 2), jnp.full((2, len(points)), -np.log(len(points)))
    )
    output = {"logits": jnp.array([1.0, 0.0]), "features": z}
    return KDensity(sigma2).statistics(learned, lambda x: output, None)


def test_one_kernel_is_its_exponent_and_far_points_do_not_underflow():
    point = np.zeros((1, 3), np.float32)
    for r in (0.0, 1.0, 1e3, 1e6, 1e8):
        z = jnp.float32([0, r, 0])
        value, gradient = jax.value_and_grad(density)(z, point)
        assert value == pytest.approx(-0.26 * r * r, rel=1e-5)
        np.testing.assert_allclose(gradient, -0.52 * z, rtol=1e-5)


def test_density_falls_with_the_distance():
    points = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    values = [float(density(jnp.full(4, r), points)) for r in (3.0, 4.0, 8.0, 40.0)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 4


@pytest.mark.parametrize("n", [1, 5, 13])
def test_distances_in_chunks(n):
    rng = np.random.default_rng(n)
    dim = CHUNK // 4  # four points at a time
    points, x = (rng.normal(size=s).astype(np.float32) for s in ((n, dim), (dim,)))
    found = squared_distances(x, points)
    expected = ((points.astype(np.float64) - x) ** 2).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    gradient = jax.grad(lambda x: squared_distances(x, points).sum())(x)
    np.testing.assert_allclose(gradient, 2 * (n * x - points.sum(0)), atol=1e-4)
    assert squared_distances(points[0], points)[0] == 0


def test_a_class_without_images_is_refused():
    some = LABELS != 1
    with pytest.raises(ValueError, match="class 1"):
        KDensity().fit(MODEL, IMAGES[some], LABELS[some])


def test_a_model_without_features_is_refused():
    logits_alone = jax.tree_util.Partial(lambda images: images.sum((1, 2)))
    with pytest.raises(ValueError, match="features"):
        KDensity().fit(logits_alone, IMAGES, LABELS % 2)
