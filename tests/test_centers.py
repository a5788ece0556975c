"""Class centers: closed forms against their definition, the search against known optima."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from robustjax import centers


def gram(found):
    return found.astype(np.float64) @ found.T


def largest_cosine(found):
    cosines = gram(found)
    np.fill_diagonal(cosines, -1)
    return cosines.max()


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize("extra", [0, 7])
def test_max_mahalanobis_is_a_regular_simplex(num_classes, extra):
    found = centers.max_mahalanobis(num_classes, num_classes - 1 + extra)
    expected = np.full((num_classes, num_classes), -1 / (num_classes - 1))
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(gram(found), expected, atol=1e-6)
    np.testing.assert_allclose(found.astype(np.float64).sum(0), 0, atol=1e-6)
    assert found.dtype == np.float32


def test_the_closed_form_is_the_recursion_of_the_paper():
    """Algorithm 1 in float64; its last entry is a rounding error, zero here."""
    num_classes = 10
    rows = np.zeros((num_classes, num_classes))
    rows[0, 0] = 1
    for k in range(1, num_classes):
        for j in range(k):
            rows[k, j] = -(1 / (num_classes - 1) + rows[k] @ rows[j]) / rows[j, j]
        rows[k, k] = np.sqrt(abs(1 - rows[k] @ rows[k]))
    found = centers.max_mahalanobis(num_classes, num_classes, 10.0)
    np.testing.assert_allclose(found, 10 * rows, atol=2e-6)
    assert found[9, 9] == 0


@pytest.mark.parametrize(
    ("num_classes", "distance"), [(2, 20.0), (3, 17.3205), (10, 14.90712), (100, 14.21338)]
)
def test_the_distances_of_norm_10(num_classes, distance):
    found = centers.max_mahalanobis(num_classes, 128, 10.0)
    distances = centers.pairwise_distances(found)
    others = distances[~np.eye(num_classes, dtype=bool)]
    np.testing.assert_allclose(others, distance, atol=2e-5)
    assert centers.smallest_distance(found) == others.min()


@pytest.mark.parametrize("num_classes", [4, 5, 10, 17])
def test_a_packing_of_the_plane_is_the_regular_polygon(num_classes):
    found = centers.packing(num_classes, 2, 3.0)
    turned = np.roll(found, -1, 0)
    cosine = np.cos(2 * np.pi / num_classes)
    np.testing.assert_allclose(np.sum(found * turned, 1), 9 * cosine, atol=1e-5)
    assert largest_cosine(found / 3) == pytest.approx(cosine, abs=1e-6)


def test_ten_classes_in_the_plane():
    found = centers.packing(10, 2)
    assert largest_cosine(found) == pytest.approx(0.80902, abs=1e-5)
    assert centers.smallest_distance(found) == pytest.approx(0.61803, abs=1e-5)


@pytest.mark.parametrize(("num_classes", "dim"), [(5, 3), (6, 3), (8, 4), (7, 5), (1000, 512)])
def test_up_to_two_dim_classes_are_orthogonal_or_further(num_classes, dim):
    found = centers.packing(num_classes, dim)
    assert largest_cosine(found) == 0
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.sum(0), 0, atol=1e-5)


def test_few_classes_get_the_simplex():
    np.testing.assert_array_equal(centers.packing(4, 7, 2.0), centers.max_mahalanobis(4, 7, 2.0))


@pytest.mark.parametrize(
    ("num_classes", "dim", "cosine"),
    [
        (7, 3, 0.21014),  # Schuette and van der Waerden 1951, as the next two
        (8, 3, 0.26120),  # the square antiprism
        (9, 3, 1 / 3),
        (10, 3, 0.40439),  # Danzer 1963
        (12, 3, 5**-0.5),  # the icosahedron, Fejes Toth 1943
        (24, 3, 0.72308),  # the snub cube, Robinson 1961
        (10, 4, 1 / 6),  # Petersen's graph, Bachoc and Vallentin 2009
        (24, 4, 1 / 2),  # the 24-cell
        (16, 5, 1 / 5),  # universally optimal, Cohn and Kumar 2007, as the rest
        (27, 6, 1 / 4),
        (56, 7, 1 / 3),
    ],
)
def test_the_search_meets_the_known_optima(num_classes, dim, cosine):
    found = centers.packing(num_classes, dim)
    assert largest_cosine(found) == pytest.approx(cosine, abs=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert found.dtype == np.float32


def test_the_roots_of_e8_come_from_one_start():
    """All twelve starts take ten seconds; the second smoothness finds it from nearly any."""
    with threadpool_limits(1, "blas"):
        found = centers._search(240, 8, 10, np.random.default_rng(0))
    assert largest_cosine(found) == pytest.approx(1 / 2, abs=1e-5)


def test_the_gradient_of_the_smooth_cosine():
    rng = np.random.default_rng(0)
    flat, direction = rng.standard_normal((2, 12))
    _, gradient = centers._smooth_largest_cosine(flat, 7.0, 3)
    ahead, behind = (
        centers._smooth_largest_cosine(flat + s * 1e-6 * direction, 7.0, 3)[0] for s in (1, -1)
    )
    assert gradient @ direction == pytest.approx((ahead - behind) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("make", [centers.packing, centers.random])
def test_the_same_arguments_give_the_same_centers(make):
    np.testing.assert_array_equal(make(9, 3, 2.0, 1), make(9, 3, 2.0, 1))


@hypothesis.given(st.integers(2, 8), st.integers(1, 7), st.integers(0, 99))
@hypothesis.settings(max_examples=50, deadline=None)
def test_random_centers_have_the_norm_and_are_no_further_than_a_simplex(num_classes, dim, seed):
    found = centers.random(num_classes, dim, 10.0, seed)
    np.testing.assert_allclose(np.linalg.norm(found.astype(float), axis=1), 10, rtol=1e-6)
    simplex = 10 * np.sqrt(2 * num_classes / (num_classes - 1))
    assert centers.smallest_distance(found) <= simplex * (1 + 1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize(("dim", "distance"), [(256, 13.13), (64, 12.05)])
def test_how_far_ten_random_centers_of_norm_10_are(dim, distance):
    found = [centers.smallest_distance(centers.random(10, dim, 10.0, s)) for s in range(300)]
    assert np.mean(found) == pytest.approx(distance, abs=0.06)


def test_the_seed_is_the_random_centers():
    """A trained model is nothing without its centers: these bits must never change."""
    np.testing.assert_allclose(centers.random(2, 2)[0], [0.975224, 0.221220], atol=1e-6)
    assert (centers.random(5, 4, seed=1) != centers.random(5, 4, seed=2)).all()


def test_random_directions_are_uniform():
    """The second moment of uniform unit vectors is I / dim; a cube's corners would favour axes."""
    found = centers.random(20000, 3).astype(float)
    np.testing.assert_allclose(found.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(found.T @ found / 20000, np.eye(3) / 3, atol=0.01)
    np.testing.assert_allclose(np.mean(found**4, 0), 1 / 5, atol=0.01)


BAD = [(1, 3), (np.int64(1), 3), (4, 0), (4, 3, 0.0), (4, 3, -1.0), (4, 3, np.inf), (4, 3, np.nan)]


@pytest.mark.parametrize("make", [centers.max_mahalanobis, centers.packing, centers.random])
@pytest.mark.parametrize("arguments", BAD)
def test_impossible_sizes_are_refused(make, arguments):
    with pytest.raises(ValueError, match=r"num_classes|dim|radius"):
        make(*arguments)


def test_too_few_dimensions_say_what_to_do():
    with pytest.raises(ValueError, match=r"4 equidistant centers need 3 dimensions.*packing`"):
        centers.max_mahalanobis(4, 2)
    with pytest.raises(ValueError, match=r"room for two centers.*dim >= 2"):
        centers.packing(3, 1)


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((1, 3)), np.array([[0.0], [np.nan]])])
def test_what_is_no_set_of_centers_has_no_distances(bad):
    for function in (centers.pairwise_distances, centers.smallest_distance):
        with pytest.raises(ValueError, match=r"\(L >= 2, dim\) and finite|centers must be finite"):
            function(bad)
