"""Sample density: how many features a loss packs into a unit of feature space.

SD(z) = number of features in a small neighbourhood of z / its volume. Where a contour of the loss
is a sphere of radius R(C), N p(C) dC features have a loss in [C, C + dC], and they share the shell
between two spheres, of volume S_d R^(d-1) |dR/dC| dC with S_d = 2 pi^(d/2) / Gamma(d/2). So

    exact      SD = N p(C) / (S_d R^(d-1) |dR/dC|)
    paper      SD ~ N p(C) / R^(d-1)

The paper's theorems divide by the surface alone: the thickness |dR/dC| of the shell is missing,
and it is no constant (1 / R for MMC). What they conclude, that features crowd where the MMC loss
goes to 0 and need not where a softmax loss does, holds of both from three dimensions on; in the
plane the exact density of MMC is N p(C) / (2 pi), and does not grow as C falls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, gammaln
from sklearn.neighbors import NearestNeighbors

from robustjax.centers import pairwise_distances
from robustjax.config import check_number
from robustjax.theory.contours import GSCE, contour


class Shell(NamedTuple):
    """The features whose loss is near C: R(C) and |dR/dC|, numbers or arrays over C."""

    radius: np.ndarray | float
    thickness: np.ndarray | float


def mmc_shell(loss: np.ndarray | float) -> Shell:
    """MMC, |z - m_y|^2 / 2 = C: a sphere around the center, R = sqrt(2 C), dR/dC = 1 / R.

    Raises:
      ValueError: a loss <= 0.
    """
    loss = np.asarray(loss, float)
    if not (loss > 0).all():
        raise ValueError(f"the loss of a shell is positive, got {loss.min()}")
    radius = np.sqrt(2 * loss)
    return Shell(radius, 1 / radius)


def gsce_shell(model: GSCE, label: int, rival: int, loss: float) -> Shell:
    """g-SCE with unlike scales: R of `contour`, dR/dC = e^C / ((e^C - 1) 2 R |s_y - s_r|).

    Raises:
      ValueError: no feature has that loss, equal scales, or a loss <= 0.
    """
    squared = contour(model, label, rival, loss).squared_radius
    if squared < 0:
        raise ValueError(f"no feature has the loss {loss}; see `extreme_loss`")
    radius = np.sqrt(squared)
    apart = abs(model.scales[label] - model.scales[rival])
    return Shell(radius, 1 / (-np.expm1(-loss) * 2 * radius * apart))


def density_exact(mass: np.ndarray | float, shell: Shell, dim: int) -> np.ndarray | float:
    """Features per unit of volume, if they fill their shell evenly.

    Args:
      mass: N p(C), features per unit of loss.
      shell: of C.
      dim: d, of the features.

    Returns:
      mass / (S_d R^(d-1) |dR/dC|). For MMC: N p(C) / (S_d (2 C)^((d-2)/2)).

    Raises:
      ValueError: dim < 1.

    Guarantees:
      The number of features in a thin shell is this times its volume.
    """
    return density_paper(mass, shell, dim) / shell.thickness


def density_paper(mass: np.ndarray | float, shell: Shell, dim: int) -> np.ndarray | float:
    """What the paper states: `density_exact` without the thickness of the shell.

    It is meant up to a factor, here S_d. For MMC a factor of R = sqrt(2 C) is missing, so the ratio
    of two densities is wrong by the square root of that of the losses.

    References:
      Pang et al., "Rethinking softmax cross-entropy loss for adversarial robustness", 2020, Eq. 7
        and 9.
    """
    check_number("dim", dim, 1)
    surface = np.log(2) + dim / 2 * np.log(np.pi) - gammaln(dim / 2)
    return mass * np.exp(-surface - (dim - 1) * np.log(shell.radius))


def shell_deviation(
    loss: Callable[[np.ndarray], np.ndarray],
    shell: Callable[[float], Shell],
    center: np.ndarray,
    interval: tuple[float, float],
    samples: int = 1_000_000,
    seed: int = 0,
) -> float:
    """Count evenly spread points with a loss in a thin interval: `density_exact` / truth - 1.

    Args:
      loss: of points (n, d) -> (n,), constant on spheres around `center`.
      shell: of a loss.
      center: (d,).
      interval: (C, C + dC). The density is taken in its middle, so dC / C wants to be small.
      samples: spread over a ball that just holds both contours.
      seed: of the points.

    Guarantees:
      Zero up to (dC / C)^2 and the error of counting, one over the square root of the count.
    """
    low, high = interval
    dim = len(center)
    rng = np.random.default_rng(seed)
    ball = 1.001 * max(shell(low).radius, shell(high).radius)
    points = rng.standard_normal((samples, dim))
    points *= ball * rng.random((samples, 1)) ** (1 / dim) / np.linalg.norm(points, axis=1)[:, None]
    found = loss(center + points)
    mass = np.count_nonzero((found >= low) & (found < high)) / (high - low)
    truth = np.log(samples) - _log_ball(dim) - dim * np.log(ball)
    return float(density_exact(mass, shell((low + high) / 2), dim) / np.exp(truth) - 1)


def knn_log_density(features: np.ndarray, queries: np.ndarray | None = None, k: int = 20):
    """log SD at some points, from the distance of the k-th nearest feature.

        log SD = digamma(k) - log V_d - d log r_k,    V_d the volume of the unit ball

    with digamma(k) in the place of log k, so that the estimate of the logarithm has no bias where
    the density is even over r_k. Logarithms, because r^d overflows for features of a network.

    Args:
      features: (N, d).
      queries: (M, d); None asks at the features, each of which leaves itself out.
      k: of neighbours.

    Returns:
      (M,) log of features per unit of volume; infinite where k features coincide.

    Raises:
      ValueError: fewer than k features to choose from, or k < 1.

    References:
      Kozachenko & Leonenko, "Sample estimate of the entropy of a random vector", 1987.
    """
    features = np.asarray(features, float)
    check_number("k", k, 1, len(features) - (queries is None))
    distances, _ = NearestNeighbors(n_neighbors=k).fit(features).kneighbors(queries)
    dim = features.shape[1]
    with np.errstate(divide="ignore"):
        return digamma(k) - _log_ball(dim) - dim * np.log(distances[:, -1])


def unit_distance(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Features (N, d) over the mean distance of two class means, so densities can be compared.

    A network can scale its features by a at no cost to its predictions, and SD by a^-d with it.

    Raises:
      ValueError: fewer than two classes, or class means that all coincide.

    Guarantees:
      The same for features and any multiple of them.
    """
    means = [features[labels == label].mean(0) for label in np.unique(labels)]
    distances = pairwise_distances(np.stack(means))
    unit = distances[np.triu_indices(len(means), 1)].mean()
    if unit == 0:
        raise ValueError("the class means coincide, so their distance is no unit of length")
    return features / unit


def _log_ball(dim: int) -> float:
    """log V_d, the volume of the unit ball."""
    return dim / 2 * np.log(np.pi) - gammaln(dim / 2 + 1)
