"""How far normal features lie from the decision boundary: Theorem 1 of Max-Mahalanobis.

The features of class i are N(m_i, S) with one covariance S; the boundary of two classes is the one
of linear discriminant analysis, and distances are Mahalanobis: Euclidean once S is whitened.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from robustjax.centers import smallest_distance
from robustjax.config import check_number


def expected_distance(delta: np.ndarray | float) -> np.ndarray | float:
    """The mean distance of a sample of two classes to their boundary.

        E d = sqrt(2 / pi) exp(-Delta^2 / 8) + Delta / 2 (1 - 2 Phi(-Delta / 2))

    the mean of |N(Delta / 2, 1)|, a folded normal. A misclassified sample counts with its distance
    as well; with a sign the mean is Delta / 2 exactly.

    Args:
      delta: the Mahalanobis distances Delta >= 0 of two class means, of any shape.

    Returns:
      E d, of that shape.

    Raises:
      ValueError: a negative Delta, or NaN.

    References:
      Pang et al., "Max-Mahalanobis linear discriminant analysis networks", 2018, Theorem 1.

    Guarantees:
      E d grows with Delta, and is at least Delta / 2, which it approaches.
    """
    delta = np.asarray(delta, float)
    if not (delta >= 0).all():
        raise ValueError(f"Delta is a distance, at least 0, got {delta.min()}")
    return np.sqrt(2 / np.pi) * np.exp(-(delta**2) / 8) + delta / 2 * (1 - 2 * ndtr(-delta / 2))


def sampled_distance(
    means: np.ndarray,
    covariance: np.ndarray,
    prior: float = 0.5,
    samples: int = 1_000_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Estimate E d by sampling the features, classifying by Bayes' rule, and measuring.

    Args:
      means: (2, d) of the classes.
      covariance: (d, d), positive definite, of both.
      prior: of the first class. One half is what the theorem assumes; another moves the boundary by
        log(prior / (1 - prior)) / Delta away from that class.
      samples: of both classes together, at least 2.
      seed: of the samples.

    Returns:
      The mean Mahalanobis distance to the boundary, and its standard error.

    Raises:
      ValueError: arrays that are no pair of classes, equal means, a covariance that is none, or a
        prior not in (0, 1).
    """
    means, covariance = np.asarray(means, float), np.asarray(covariance, float)
    if not 0 < prior < 1:
        raise ValueError(f"prior must lie between 0 and 1, got {prior}")
    check_number("samples", samples, 2)
    if means.ndim != 2 or len(means) != 2 or covariance.shape != 2 * means.shape[1:]:
        raise ValueError(
            "two classes have means (2, d) and a covariance (d, d), got "
            f"{means.shape} and {covariance.shape}"
        )
    if not np.allclose(covariance, covariance.T):
        raise ValueError("a covariance is symmetric, and this one is not")
    if (means[0] == means[1]).all():
        raise ValueError("classes of one mean have no boundary: take two means")
    rng = np.random.default_rng(seed)
    classes = (rng.random(samples) >= prior).astype(int)
    noise = rng.standard_normal((samples, means.shape[1]))
    root = np.linalg.cholesky(covariance)
    features = means[classes] + noise @ root.T
    # log odds = normal . (x - middle) + log(prior / (1 - prior)), and normal has the Mahalanobis
    # length Delta.
    normal = np.linalg.solve(covariance, means[0] - means[1])
    delta = np.linalg.norm(root.T @ normal)
    log_odds = (features - means.mean(0)) @ normal + np.log(prior / (1 - prior))
    distances = np.abs(log_odds) / delta
    return float(distances.mean()), float(distances.std(ddof=1) / np.sqrt(samples))


def distance_deviation(
    means: np.ndarray,
    covariance: np.ndarray,
    prior: float = 0.5,
    samples: int = 1_000_000,
    seed: int = 0,
) -> float:
    """Theorem 1: sampled minus predicted E d, in standard errors; arguments: `sampled_distance`.

    Guarantees:
      Within 4 for equal priors, whatever the covariance; far outside for unequal ones.
    """
    sampled, error = sampled_distance(means, covariance, prior, samples, seed)
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), np.asarray(means, float).T).T
    return (sampled - float(expected_distance(smallest_distance(whitened)))) / error


def robustness(centers: np.ndarray) -> float:
    """RB = min_ij E d_ij, of whitened class means (L, d): the closest pair has the smallest."""
    return float(expected_distance(smallest_distance(centers)))


def approximate_robustness(centers: np.ndarray) -> float:
    """RBbar = min_ij Delta_ij / 2, the paper's approximation of RB, which it never exceeds."""
    return smallest_distance(centers) / 2


def robustness_bound(num_classes: int, radius: float) -> float:
    """The largest RBbar of L centers of norm at most `radius`: radius sqrt(L / (2 (L - 1))).

    From sum_ij |m_i - m_j|^2 = 2 L sum |m_i|^2 - 2 |sum m_i|^2 <= 2 L^2 radius^2, over L (L - 1)
    ordered pairs.

    Raises:
      ValueError: L < 2, or a negative radius.
    """
    check_number("num_classes", num_classes, 2)
    check_number("radius", radius)
    return radius * float(np.sqrt(num_classes / (2 * (num_classes - 1))))


def bound_slack(centers: np.ndarray) -> float:
    """The bound at the largest norm of the centers (L, d), minus their RBbar.

    Guarantees:
      Never negative, to rounding; zero for Max-Mahalanobis centers and their rotations alone.
    """
    half = approximate_robustness(centers)
    radius = float(np.linalg.norm(centers, axis=1).max())
    return robustness_bound(len(centers), radius) - half
