"""Max-Mahalanobis centers: the closed form against its definition."""

import numpy as np
import pytest

from robustjax import centers


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize("extra", [0, 7])
def test_they_are_a_regular_simplex(num_classes, extra):
    found = centers.max_mahalanobis(num_classes, num_classes - 1 + extra)
    gram = found.astype(np.float64) @ found.T
    expected = np.full((num_classes, num_classes), -1 / (num_classes - 1))
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(gram, expected, atol=1e-6)
    np.testing.assert_allclose(found.astype(np.float64).sum(0), 0, atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    "arguments", [(1, 3), (4, 0), (4, 2), (4, 3, 0.0), (4, 3, -1.0), (4, 3, np.inf), (4, 3, np.nan)]
)
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match=r"num_classes|dim|radius"):
        centers.max_mahalanobis(*arguments)


def test_random_centers_have_their_norm_and_uniform_directions():
    found = centers.random(2000, 3, 10.0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 10, rtol=1e-6)
    np.testing.assert_allclose(found.mean(0), 0, atol=0.5)
    np.testing.assert_allclose(found.T @ found / 2000, 100 / 3 * np.eye(3), atol=3)
    assert found.dtype == np.float32


def test_the_seed_is_the_random_centers():
    """A trained model is nothing without its centers: these bits must never change."""
    np.testing.assert_array_equal(centers.random(5, 4, seed=1), centers.random(5, 4, seed=1))
    assert (centers.random(5, 4, seed=1) != centers.random(5, 4, seed=2)).all()
    np.testing.assert_allclose(centers.random(2, 2)[0], [0.975224, 0.221220], atol=1e-6)
