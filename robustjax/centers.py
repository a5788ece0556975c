"""Class centers in feature space: Max-Mahalanobis centers, packings, and their geometry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from robustjax.checks import INF, check_number, checked
from robustjax.lazy import Lazy

if TYPE_CHECKING:
    from scipy import optimize
    from scipy.spatial import distance
else:
    optimize = Lazy("scipy.optimize")
    distance = Lazy("scipy.spatial.distance")


@checked(host=True, num_classes=(2, INF), dim=(1, INF))
def max_mahalanobis(num_classes: int, dim: int, radius: float = 1.0) -> np.ndarray:
    """Max-Mahalanobis centers: a regular simplex, as far apart as a ball allows.

    With m_j = sqrt(L (L - j) / ((L - 1) (L - j + 1))), row j of the unit simplex has m_j at column
    j, every later row -m_j / (L - j) there, and the rest is zero: the Cholesky factor of the Gram
    matrix L/(L-1) I - 1/(L-1) 11^T, in closed form.

    Args:
      num_classes: L >= 2.
      dim: dimension of the features, at least L - 1.
      radius: the norm of every center, C_MM; "MMC-10" uses 10.

    Returns:
      (L, dim) float32, the center of class i in row i.

    Raises:
      ValueError: L < 2, dim < 1, dim < L - 1, or a radius that is not a positive number.

    References:
      Pang et al., "Max-Mahalanobis linear discriminant analysis networks", 2018, Algorithm 1. Their
        recursion leaves a rounding error in the last entry, which is exactly 0 here.

    Guarantees:
      All centers have norm `radius`, and they sum to zero.
      All pairs are radius sqrt(2 L / (L - 1)) apart; no other centers do better.

    Every cosine is -1 / (L - 1), the lowest that all pairs can share:

    >>> centers = rj.centers.max_mahalanobis(3, 2)
    >>> np.round(centers @ centers.T, 3)
    array([[ 1. , -0.5, -0.5],
           [-0.5,  1. , -0.5],
           [-0.5, -0.5,  1. ]], dtype=float32)
    """
    _check_size(num_classes, dim, radius)
    if dim < num_classes - 1:
        raise ValueError(
            f"{num_classes} equidistant centers need {num_classes - 1} dimensions, got {dim}: "
            "use more dimensions, or a packing: `centers.packing` for the centers alone, "
            "head='packing' for a network, centers='packing' for a training method"
        )
    left = num_classes - np.arange(1.0, num_classes)  # L - j
    diagonal = np.sqrt(num_classes * left / ((num_classes - 1) * (left + 1)))
    simplex = np.tril(np.broadcast_to(-diagonal / left, (num_classes, num_classes - 1)), -1)
    np.fill_diagonal(simplex, diagonal)
    centers = np.zeros((num_classes, dim), np.float32)
    centers[:, : num_classes - 1] = radius * simplex
    return centers


@checked(host=True)
def packing(num_classes: int, dim: int, radius: float = 1.0, seed: int = 0) -> np.ndarray:
    """Centers of equal norm, spread as far apart as is known, for any number of classes.

    On a sphere, the largest minimum distance is the smallest maximum cosine: Tammes' problem. The
    optima with a closed form are exact:

        L <= dim + 1        the simplex of `max_mahalanobis`        cosine -1 / (L - 1)
        dim = 2             the regular polygon                     cosine cos(2 pi / L)
        L <= 2 dim          simplices in orthogonal subspaces       cosine 0

    The last is the cross-polytope at L = 2 dim. All other cases are searched from several starts:
    the smooth maximum log sum exp(tau cos) / tau over all pairs is minimised while tau grows by
    factors of ten, and the arrangement with the smallest true maximum is kept.

    Args:
      num_classes: L >= 2. Beyond 2 dim the search takes time: a tenth of a second for L = 12 in 3
        dimensions, ten seconds for L = 240 in 8, a minute or two for L = 400 in 64.
      dim: dimension of the features, at least 2 if L > 2.
      radius: the norm of every center, C_MM.
      seed: for the starts of the search; nothing else is random.

    Returns:
      (L, dim) float32, the center of class i in row i.

    Raises:
      ValueError: L < 2, dim < 1, L > 2 in one dimension, or a radius that is not a positive number.

    References:
      Rankin, "The closest packing of spherical caps in n dimensions", 1955 (L <= 2 dim).
      Cohn & Kumar, "Universally optimal distribution of points on spheres", 2007, Table 1.
      Pang et al. search with 10,000 steps of Adam on the closest pair alone; here all near pairs
        repel each other.

    Guarantees:
      All centers have norm `radius`, and the same arguments give the same centers.
      It reaches the known optima: the polygons, L <= 2 dim, (L, dim) = (8, 3), (12, 3), (240, 8).

    Ten classes in three dimensions, where no simplex fits:

    >>> centers = rj.centers.packing(10, 3)
    >>> round(rj.centers.smallest_distance(centers), 2)
    1.09
    """
    _check_size(num_classes, dim, radius)
    if num_classes > 2 and dim == 1:
        raise ValueError(
            f"one dimension has room for two centers of equal norm, not {num_classes}: use dim >= 2"
        )
    if num_classes <= dim + 1:
        return max_mahalanobis(num_classes, dim, radius)
    if dim == 2:
        angles = 2 * np.pi * np.arange(num_classes) / num_classes
        centers = np.stack([np.cos(angles), np.sin(angles)], 1)
    elif num_classes <= 2 * dim:
        centers = _orthogonal_simplices(num_classes, dim)
    else:
        rng = np.random.default_rng(seed)
        # Every start of a large arrangement ends within a thousandth of the same cosine.
        starts = 12 if num_classes <= 256 else 1
        # Each smoothness at the start finds optima that the others miss: (24, 4) needs the first,
        # (10, 3) the first or the last.
        firsts = [(1, 10, 30)[k % 3] for k in range(starts)]
        with threadpool_limits(1, "blas"):  # threads only slow down matrices this small
            found = [_search(num_classes, dim, first, rng) for first in firsts]
        centers = max(found, key=smallest_distance)
    return (radius * centers).astype(np.float32)


@checked(host=True)
def random(num_classes: int, dim: int, radius: float = 1.0, seed: int = 0) -> np.ndarray:
    """Centers of equal norm in uniformly random directions: the ablation "MMC (rand)".

    Args:
      num_classes: L >= 2.
      dim: dimension of the features, at least 1.
      radius: the norm of every center, C_MM.
      seed: for the directions.

    Returns:
      (L, dim) float32.

    Raises:
      ValueError: L < 2, dim < 1, or a radius that is not a positive number.

    References:
      Pang et al., "Rethinking softmax cross-entropy loss for adversarial robustness", 2020. Their
        random centers are not published; uniform directions are our reading.

    Guarantees:
      All centers have norm `radius`.
      The same seed gives the same centers on every machine and with every release of NumPy.

    >>> centers = rj.centers.random(10, 256, radius=10.0)
    >>> centers.shape, np.linalg.norm(centers, axis=1).round(3).tolist()[:3]
    ((10, 256), [10.0, 10.0, 10.0])
    """
    _check_size(num_classes, dim, radius)
    # A saved model rebuilds its centers from their seed; RandomState's stream is frozen (NEP 19).
    centers = np.random.RandomState(seed).standard_normal((num_classes, dim))
    return (radius * _unit(centers)).astype(np.float32)


@checked(host=True)
def pairwise_distances(centers: np.ndarray) -> np.ndarray:
    """Euclidean distances of all pairs: (L, dim) -> (L, L) float64, zero on the diagonal.

    Raises:
      ValueError: `centers` is not an array (L, dim) of finite numbers with L >= 2.

    >>> rj.centers.pairwise_distances(np.array([[0.0, 0.0], [3.0, 4.0]]))
    array([[0., 5.],
           [5., 0.]])
    """
    return distance.squareform(distance.pdist(_checked(centers)))


@checked(host=True)
def smallest_distance(centers: np.ndarray) -> float:
    """The distance of the closest pair, which Max-Mahalanobis centers maximise.

    Raises:
      ValueError: `centers` is not an array (L, dim) of finite numbers with L >= 2.

    >>> round(rj.centers.smallest_distance(rj.centers.max_mahalanobis(10, 64, radius=10.0)), 3)
    14.907
    """
    return float(distance.pdist(_checked(centers)).min())


def _check_size(num_classes: int, dim: int, radius: float) -> None:
    """Raise ValueError unless the arguments of every kind of centers are in range."""
    check_number("num_classes", num_classes, 2)
    check_number("dim", dim, 1)
    check_number("radius", radius)
    if not 0 < radius < np.inf:
        raise ValueError(f"radius must be a positive number, got {radius}")


def _checked(centers: np.ndarray) -> np.ndarray:
    centers = np.asarray(centers, np.float64)
    if centers.ndim != 2 or len(centers) < 2 or not np.isfinite(centers).all():
        raise ValueError(
            f"centers must be (L >= 2, dim) and finite, got an array of shape {centers.shape}"
        )
    return centers


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _orthogonal_simplices(num_classes: int, dim: int) -> np.ndarray:
    """L - dim simplices in orthogonal subspaces: all cosines between centers are at most 0."""
    centers = np.zeros((num_classes, dim))
    row = column = 0
    for part in np.array_split(np.arange(dim), num_classes - dim):
        size = len(part)
        centers[row : row + size + 1, column : column + size] = max_mahalanobis(size + 1, size)
        row, column = row + size + 1, column + size
    return centers


def _search(num_classes: int, dim: int, first: float, rng: np.random.Generator) -> np.ndarray:
    """One random start of the search: unit vectors (L, dim), a local minimum of the cosine."""
    centers = _unit(rng.standard_normal((num_classes, dim)))
    for tau in first * 10.0 ** np.arange(6):
        found = optimize.minimize(
            _smooth_largest_cosine,
            centers.ravel(),
            (tau, dim),
            method="L-BFGS-B",
            jac=True,
            options={"maxiter": 2000, "maxcor": 20, "ftol": 1e-9, "gtol": 1e-8},
        )
        centers = _unit(found.x.reshape(centers.shape))
    return centers


def _smooth_largest_cosine(flat: np.ndarray, tau: float, dim: int) -> tuple[float, np.ndarray]:
    """log sum exp(tau cos_ij) / tau over ordered pairs, and its gradient by the vectors."""
    vectors = flat.reshape(-1, dim)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / norms
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    largest = cosines.max()
    weights = np.exp(tau * (cosines - largest))
    total = weights.sum()
    pull = 2 / total * weights @ units
    pull -= np.sum(pull * units, 1, keepdims=True) * units  # only directions matter, not lengths
    return largest + np.log(total) / tau, (pull / norms).ravel()
