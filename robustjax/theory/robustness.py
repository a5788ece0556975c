"""The distance of normal features to the decision boundary: Theorem 1 of Max-Mahalanobis.

The features of class i are N(m_i, S) with one covariance S. The boundary of two classes is that of
linear discriminant analysis, and distances are Mahalanobis: Euclidean once S is whitened.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from robustjax.centers import smallest_distance
from robustjax.checks import INF, check_number, checked


@checked(host=True, delta="...")
def expected_distance(delta: np.ndarray | float) -> np.ndarray | float:
    """The mean distance of a sample of two classes to their boundary.

        E d = sqrt(2 / pi) exp(-Delta^2 / 8) + Delta / 2 (1 - 2 Phi(-Delta / 2))

    This is the mean of |N(Delta / 2, 1)|, a folded normal. Misclassified samples count with their
    distance, too; if it counted as negative, the mean would be Delta / 2.

    Args:
      delta: the Mahalanobis distances Delta >= 0 of two class means, of any shape.

    Returns:
      E d, of the same shape.

    Raises:
      ValueError: a negative Delta, or NaN.

    References:
      Pang et al., "Max-Mahalanobis linear discriminant analysis networks", 2018, Theorem 1.

    Guarantees:
      E d grows with Delta, and is at least Delta / 2, which it approaches.

    >>> rj.theory.expected_distance([0.0, 2.0, 10.0]).round(3).tolist()
    [0.798, 1.167, 5.0]
    """
    delta = np.asarray(delta, float)
    if not (delta >= 0).all():
        raise ValueError(f"delta is a distance and must be at least 0, got {delta.min()}")
    return np.sqrt(2 / np.pi) * np.exp(-(delta**2) / 8) + delta / 2 * (1 - 2 * ndtr(-delta / 2))


@checked(host=True, means="2 d", covariance="d d", samples=(2, INF))
def sampled_distance(
    means: np.ndarray,
    covariance: np.ndarray,
    prior: float = 0.5,
    samples: int = 1_000_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Estimate E d by sampling features and measuring their distance to the Bayes boundary.

    Args:
      means: (2, d), of the classes.
      covariance: (d, d), positive definite, of both classes.
      prior: of the first class. The theorem assumes one half; any other prior moves the boundary by
        log(prior / (1 - prior)) / Delta away from that class.
      samples: number of samples of both classes together, at least 2.
      seed: for the samples.

    Returns:
      The mean Mahalanobis distance to the boundary, and its standard error.

    Raises:
      ValueError: wrong shapes, equal means, a covariance that is not symmetric and positive
        definite, or a prior outside (0, 1).

    >>> means, covariance = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.eye(2)
    >>> mean, error = rj.theory.sampled_distance(means, covariance, samples=10_000)
    >>> bool(abs(mean - rj.theory.expected_distance(2.0)) < 4 * error)
    True
    """
    means, covariance = np.asarray(means, float), np.asarray(covariance, float)
    if not 0 < prior < 1:
        raise ValueError(f"prior must lie between 0 and 1, got {prior}")
    check_number("samples", samples, 2)
    if means.ndim != 2 or len(means) != 2 or covariance.shape != 2 * means.shape[1:]:
        raise ValueError(
            "means must have the shape (2, d) and covariance (d, d), got "
            f"{means.shape} and {covariance.shape}"
        )
    if not np.allclose(covariance, covariance.T):
        raise ValueError("covariance must be symmetric")
    if (means[0] == means[1]).all():
        raise ValueError("classes with equal means have no boundary: the means must differ")
    rng = np.random.default_rng(seed)
    classes = (rng.random(samples) >= prior).astype(int)
    noise = rng.standard_normal((samples, means.shape[1]))
    root = _root(covariance)
    features = means[classes] + noise @ root.T
    # log odds = normal . (x - middle) + log(prior / (1 - prior)), where the Mahalanobis length of
    # normal is Delta.
    normal = np.linalg.solve(covariance, means[0] - means[1])
    delta = np.linalg.norm(root.T @ normal)
    log_odds = (features - means.mean(0)) @ normal + np.log(prior / (1 - prior))
    distances = np.abs(log_odds) / delta
    return float(distances.mean()), float(distances.std(ddof=1) / np.sqrt(samples))


@checked(host=True, means="2 d", covariance="d d", samples=(2, INF))
def distance_deviation(
    means: np.ndarray,
    covariance: np.ndarray,
    prior: float = 0.5,
    samples: int = 1_000_000,
    seed: int = 0,
) -> float:
    """Theorem 1: sampled minus predicted E d, in standard errors.

    Args:
      means, covariance, prior, samples, seed: see `sampled_distance`.

    Guarantees:
      Within 4 for equal priors and any covariance; far outside for unequal priors.

    >>> means, covariance = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> bool(abs(rj.theory.distance_deviation(means, covariance, samples=10_000)) < 4)
    True
    """
    sampled, error = sampled_distance(means, covariance, prior, samples, seed)
    whitened = np.linalg.solve(_root(covariance), np.asarray(means, float).T).T
    return (sampled - float(expected_distance(smallest_distance(whitened)))) / error


@checked(host=True, centers="L>1 d")
def robustness(centers: np.ndarray) -> float:
    """RB = min_ij E d_ij of whitened class means (L, d): the distance of the closest pair decides.

    >>> centers = rj.centers.max_mahalanobis(10, 9, radius=1.0)
    >>> round(rj.theory.robustness(centers), 3)
    1.01
    """
    return float(expected_distance(smallest_distance(centers)))


@checked(host=True, centers="L>1 d")
def approximate_robustness(centers: np.ndarray) -> float:
    """RBbar = min_ij Delta_ij / 2, the paper's approximation of RB, which it never exceeds.

    >>> centers = rj.centers.max_mahalanobis(10, 9, radius=1.0)
    >>> round(rj.theory.approximate_robustness(centers), 3)
    0.745
    """
    return smallest_distance(centers) / 2


@checked(host=True, num_classes=(2, INF))
def robustness_bound(num_classes: int, radius: float) -> float:
    """The largest RBbar of L centers of norm at most `radius`: radius sqrt(L / (2 (L - 1))).

    Proof: the smallest of L (L - 1) ordered pairs is at most their mean, and sum_ij |m_i - m_j|^2 =
    2 L sum |m_i|^2 - 2 |sum m_i|^2 <= 2 L^2 radius^2.

    Raises:
      ValueError: L < 2, or a negative radius.

    >>> round(rj.theory.robustness_bound(10, radius=1.0), 3)
    0.745
    """
    check_number("num_classes", num_classes, 2)
    check_number("radius", radius)
    return radius * float(np.sqrt(num_classes / (2 * (num_classes - 1))))


@checked(host=True, centers="L>1 d")
def bound_slack(centers: np.ndarray) -> float:
    """`robustness_bound` at the largest norm of the centers (L, d), minus their RBbar.

    Guarantees:
      Never negative, up to rounding; zero only for Max-Mahalanobis centers and their rotations.

    >>> round(rj.theory.bound_slack(rj.centers.max_mahalanobis(10, 9)), 3)
    0.0
    >>> round(rj.theory.bound_slack(rj.centers.random(10, 9)), 3)
    0.327
    """
    half = approximate_robustness(centers)
    radius = float(np.linalg.norm(centers, axis=1).max())
    return robustness_bound(len(centers), radius) - half


def _root(covariance: np.ndarray) -> np.ndarray:
    """The Cholesky factor."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError("covariance must be symmetric and positive definite") from None
