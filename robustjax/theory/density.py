"""Sample density: how many features a loss packs into a unit of feature space.

SD(z) is the number of features in a small neighbourhood of z, divided by its volume. If the
contour of the loss C is a sphere of radius R(C), the N p(C) dC features with a loss in [C, C + dC]
share the shell between two spheres. Its volume is S_d R^(d-1) |dR/dC| dC, where
S_d = 2 pi^(d/2) / Gamma(d/2). So

    exact      SD = N p(C) / (S_d R^(d-1) |dR/dC|)
    paper      SD ~ N p(C) / R^(d-1)

The paper's theorems divide by the surface alone. The thickness |dR/dC| of the shell is missing, and
it is not constant (1 / R for MMC). Their conclusion, that features crowd as the MMC loss goes to 0
but need not as a softmax loss does, holds for both formulas from three dimensions on. In the plane
the exact density of MMC is N p(C) / (2 pi), which does not grow as C falls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, gammaln
from sklearn.neighbors import NearestNeighbors

from robustjax.centers import pairwise_distances
from robustjax.checks import INF, check_number, checked
from robustjax.theory.contours import GSCE, contour


class Shell(NamedTuple):
    """Where the features with a loss near C lie: R(C) and |dR/dC|, numbers or arrays over C.

    >>> shell = rj.theory.Shell(radius=2.0, thickness=0.5)
    >>> 2 * np.pi * shell.radius * shell.thickness == 2 * np.pi  # area in the plane for each dC
    True
    """

    radius: np.ndarray | float
    thickness: np.ndarray | float


@checked(host=True, loss="...")
def mmc_shell(loss: np.ndarray | float) -> Shell:
    """The shell of MMC, |z - m_y|^2 / 2 = C, around the center: R = sqrt(2 C), dR/dC = 1 / R.

    Raises:
      ValueError: a loss <= 0.

    >>> rj.theory.mmc_shell(np.array([0.5, 2.0]))
    Shell(radius=array([1., 2.]), thickness=array([1. , 0.5]))
    """
    loss = np.asarray(loss, float)
    if not (loss > 0).all():
        raise ValueError(f"the loss must be positive, got {loss.min()}")
    radius = np.sqrt(2 * loss)
    return Shell(radius, 1 / radius)


@checked(host=True)
def gsce_shell(model: GSCE, label: int, rival: int, loss: float) -> Shell:
    """The shell of g-SCE with different scales: R of `contour`, dR/dC as below.

        dR/dC = e^C / ((e^C - 1) 2 R |s_y - s_r|)

    Raises:
      ValueError: no feature has that loss, equal scales, or a loss <= 0.

    >>> model = rj.theory.GSCE(np.array([[0, 0], [2, 0]]), np.array([2, 1]), np.zeros(2))
    >>> radius, thickness = rj.theory.gsce_shell(model, label=0, rival=1, loss=1.0)
    >>> radius.round(2).item(), thickness.round(2).item()
    (2.92, 0.27)
    """
    squared = contour(model, label, rival, loss).squared_radius
    if squared < 0:
        raise ValueError(f"no feature has the loss {loss}; see `extreme_loss`")
    radius = np.sqrt(squared)
    apart = abs(model.scales[label] - model.scales[rival])
    return Shell(radius, 1 / (-np.expm1(-loss) * 2 * radius * apart))


@checked(host=True, mass=(0, INF), dim=(1, INF))
def density_exact(mass: np.ndarray | float, shell: Shell, dim: int) -> np.ndarray | float:
    """Features per unit of volume, if they fill their shell evenly.

    Args:
      mass: N p(C), features per unit of loss.
      shell: where the features of loss C lie.
      dim: d, the dimension of the features.

    Returns:
      mass / (S_d R^(d-1) |dR/dC|). For MMC: N p(C) / (S_d (2 C)^((d-2)/2)).

    Raises:
      ValueError: dim < 1.

    Guarantees:
      The number of features in a thin shell is this times its volume.

    When the MMC loss falls from 1 to 0.01, features of 4 dimensions become 100 times as dense:

    >>> shell = rj.theory.mmc_shell(np.array([1.0, 0.01]))
    >>> rj.theory.density_exact(1000.0, shell, dim=4).round(1).tolist()
    [25.3, 2533.0]
    """
    return density_paper(mass, shell, dim) / shell.thickness


@checked(host=True, mass=(0, INF), dim=(1, INF))
def density_paper(mass: np.ndarray | float, shell: Shell, dim: int) -> np.ndarray | float:
    """The density as the paper states it: `density_exact` without the thickness of the shell.

    The paper gives it up to a factor, here 1 / S_d. For MMC a factor of R = sqrt(2 C) is missing,
    so the ratio of two densities is wrong by the square root of the ratio of their losses.

    References:
      Pang et al., "Rethinking softmax cross-entropy loss for adversarial robustness", 2020, Eq. 7
        and 9.

    The example of `density_exact`, with a growth of 1000 instead of 100:

    >>> shell = rj.theory.mmc_shell(np.array([1.0, 0.01]))
    >>> rj.theory.density_paper(1000.0, shell, dim=4).round(1).tolist()
    [17.9, 17911.2]
    """
    check_number("dim", dim, 1)
    surface = np.log(2) + dim / 2 * np.log(np.pi) - gammaln(dim / 2)
    return mass * np.exp(-surface - (dim - 1) * np.log(shell.radius))


@checked(host=True, center="d", samples=(1, INF))
def shell_deviation(
    loss: Callable[[np.ndarray], np.ndarray],
    shell: Callable[[float], Shell],
    center: np.ndarray,
    interval: tuple[float, float],
    samples: int = 1_000_000,
    seed: int = 0,
) -> float:
    """The relative error of `density_exact`, measured by counting evenly spread points.

    Args:
      loss: points (n, d) -> (n,), constant on spheres around `center`.
      shell: a loss -> its shell.
      center: (d,).
      interval: (C, C + dC). The density is evaluated in the middle, so dC / C should be small.
      samples: the number of points in a ball that just holds both contours.
      seed: for the points.

    Returns:
      `density_exact` / true density - 1.

    Guarantees:
      Zero, up to (dC / C)^2 and the error of counting, one over the square root of the count.

    >>> def mmc(z):
    ...     return np.sum(z**2, -1) / 2
    >>> shell, center, interval = rj.theory.mmc_shell, np.zeros(3), (0.50, 0.55)
    >>> error = rj.theory.shell_deviation(mmc, shell, center, interval, samples=10_000)
    >>> abs(error) < 0.1
    True
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


@checked(host=True, features="N d", queries="M d")
def knn_log_density(features: np.ndarray, queries: np.ndarray | None = None, k: int = 20):
    """log SD at some points, from the distance to the k-th nearest feature.

        log SD = digamma(k) - log V_d - d log r_k,    V_d the volume of the unit ball

    With digamma(k) instead of log k, the estimate of the logarithm is unbiased where the density is
    uniform within r_k. Logarithms, because r^d overflows for features of a network.

    Args:
      features: (N, d).
      queries: (M, d); None evaluates at the features themselves, each without itself.
      k: the number of neighbours.

    Returns:
      (M,) log of features per unit of volume; infinite where k features coincide.

    Raises:
      ValueError: fewer than k features to choose from, or k < 1.

    References:
      Kozachenko & Leonenko, "Sample estimate of the entropy of a random vector", 1987.

    On a grid of 100 x 100 features in the unit square, about 10,000:

    >>> grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 100)] * 2), -1).reshape(-1, 2)
    >>> log_density = rj.theory.knn_log_density(grid, queries=np.array([[0.5, 0.5]]))
    >>> bool(8_000 < np.exp(log_density[0]) < 12_000)
    True
    """
    features = np.asarray(features, float)
    check_number("k", k, 1, len(features) - (queries is None))
    distances, _ = NearestNeighbors(n_neighbors=k).fit(features).kneighbors(queries)
    dim = features.shape[1]
    with np.errstate(divide="ignore"):
        return digamma(k) - _log_ball(dim) - dim * np.log(distances[:, -1])


@checked(host=True, features="N d", labels="N")
def unit_distance(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Features (N, d) divided by the mean distance between class means, to compare densities.

    A network can scale its features by a factor a without changing its predictions, and SD changes
    by a^-d.

    Raises:
      ValueError: fewer than two classes, or class means that all coincide.

    Guarantees:
      Features and any multiple of them give the same result.

    >>> features, labels = np.array([[0.0, 0.0], [0.0, 2.0], [4.0, 1.0]]), np.array([0, 0, 1])
    >>> rj.theory.unit_distance(features, labels).tolist()
    [[0.0, 0.0], [0.0, 0.5], [1.0, 0.25]]
    """
    means = [features[labels == label].mean(0) for label in np.unique(labels)]
    distances = pairwise_distances(np.stack(means))
    unit = distances[np.triu_indices(len(means), 1)].mean()
    if unit == 0:
        raise ValueError("the class means coincide, so their distance cannot be the unit of length")
    return features / unit


def _log_ball(dim: int) -> float:
    """log V_d, the volume of the unit ball."""
    return dim / 2 * np.log(np.pi) - gammaln(dim / 2 + 1)
