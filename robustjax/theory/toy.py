"""Free points in the plane under the MMC loss and under Center loss: the talk's animations.

A network that could place every feature freely would move it along the negative gradient of its
loss. Here the points themselves are the parameters, and plain SGD visits them in batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from robustjax.checks import INF, check_number, checked


class Course(NamedTuple):
    """The positions of some points after every pass over all points.

    >>> course = rj.theory.mmc_course(rj.centers.max_mahalanobis(3, 2), 12, batch_size=4, passes=5)
    >>> course.positions.shape, course.labels.shape
    ((6, 12, 2), (12,))
    """

    positions: np.ndarray
    """(passes + 1, N, d), the start first."""
    labels: np.ndarray
    """(N,)."""


def _start(centers: np.ndarray, points: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, d) from a normal as wide as the centers, and labels (N,) independent of them."""
    rng = np.random.default_rng(seed)
    width = np.linalg.norm(centers, axis=1).mean()
    labels = rng.integers(len(centers), size=points)
    return width * rng.standard_normal((points, centers.shape[1])), labels


_checked_course = checked(
    host=True,
    centers="L>1 d",
    points=(1, INF),
    batch_size=(1, INF),
    passes=(0, INF),
    lr=(0, 1),
)


@_checked_course
def mmc_course(
    centers: np.ndarray, points: int, batch_size: int, passes: int, lr: float = 0.1, seed: int = 0
) -> Course:
    """SGD on sum |z - m_y|^2 / 2 over the batch: each step shrinks z - m_y by the factor 1 - lr.

    Args:
      centers: (L, d), from `centers.max_mahalanobis` or `centers.packing`.
      points: N; they start at random, as widely spread as the centers.
      batch_size: a divisor of N.
      passes: the number of passes over all points, each in a new random order.
      lr: the learning rate of a point's own loss.
      seed: for the start and the orders.

    Raises:
      ValueError: a batch size that does not divide N.

    Guarantees:
      Each visit moves a point straight towards its center, to 1 - lr of its distance.
      The course does not depend on the batch size.

    >>> centers = rj.centers.max_mahalanobis(3, 2)
    >>> course = rj.theory.mmc_course(centers, points=12, batch_size=4, passes=50)
    >>> bool(np.abs(course.positions[-1] - centers[course.labels]).max() < 0.03)
    True
    """
    features, labels = _start(centers, points, seed)
    positions = [features.copy()]
    for batches in _passes(points, batch_size, passes, seed):
        for batch in batches:
            features[batch] -= lr * (features[batch] - centers[labels[batch]])
        positions.append(features.copy())
    return Course(np.stack(positions), labels)


@_checked_course
def center_loss_course(
    centers: np.ndarray,
    points: int,
    batch_size: int,
    passes: int,
    lr: float = 0.1,
    weight: float = 1.0,
    seed: int = 0,
) -> Course:
    """SGD on softmax cross-entropy plus Center loss, which also learns a head and centers.

        loss of a point = cross-entropy(W z + b, y) + weight |z - c_y|^2 / 2

    W and b follow the batch's mean gradient. The centers c follow Wen et al.'s rule: each moves by
    half of sum (z - c) / (1 + n), over the batch's n points of its class.

    Args:
      centers: (L, d): only their number and norm matter here, for the start.
      points, batch_size, passes, lr, seed: as in `mmc_course`.
      weight: lambda of the Center loss.

    Raises:
      ValueError: a batch size that does not divide N.

    References:
      Wen et al., "A discriminative feature learning approach for deep face recognition", 2016.

    Guarantees:
      The start is that of `mmc_course`; the course depends on the batch size.

    Unlike under MMC, points do not move straight:

    >>> centers = rj.centers.max_mahalanobis(3, 2)
    >>> course = rj.theory.center_loss_course(centers, points=12, batch_size=4, passes=30)
    >>> bool(rj.theory.path_ratio(course).max() > 1.1)
    True
    """
    features, labels = _start(centers, points, seed)
    classes, dim = centers.shape
    rng = np.random.default_rng(seed)
    kernel, bias = rng.standard_normal((classes, dim)), np.zeros(classes)
    learned = np.zeros((classes, dim))
    positions = [features.copy()]
    for batches in _passes(points, batch_size, passes, seed):
        for batch in batches:
            z, hot = features[batch], np.eye(classes)[labels[batch]]
            wrong = softmax(z @ kernel.T + bias, 1) - hot
            away = z - hot @ learned
            features[batch] -= lr * (wrong @ kernel + weight * away)
            kernel -= lr * wrong.T @ z / len(batch)
            bias -= lr * wrong.mean(0)
            learned += 0.5 * (hot.T @ away) / (1 + hot.sum(0))[:, None]
        positions.append(features.copy())
    return Course(np.stack(positions), labels)


@checked(host=True, centers="L>1 d", lr=(0, 1))
def contraction_deviation(course: Course, centers: np.ndarray, lr: float = 0.1) -> float:
    """The largest | |z' - m_y| / |z - m_y| - (1 - lr) | of any point and pass of an `mmc_course`.

    Distances below 1e-9 are skipped: there the rounding of z shows.

    Guarantees:
      Zero to 1e-6, for every batch size.

    >>> centers = rj.centers.max_mahalanobis(3, 2)
    >>> course = rj.theory.mmc_course(centers, points=12, batch_size=4, passes=5)
    >>> rj.theory.contraction_deviation(course, centers) < 1e-6
    True
    """
    wanted = course.labels.max() + 1, course.positions.shape[-1]
    if centers.shape[0] < wanted[0] or centers.shape[1] != wanted[1]:
        raise ValueError(f"centers must be those of the course, {wanted}, got {centers.shape}")
    distances = np.linalg.norm(course.positions - centers[course.labels], axis=2)
    far = distances[:-1] > 1e-9
    return float(np.abs(distances[1:][far] / distances[:-1][far] - (1 - lr)).max())


@checked(host=True)
def path_ratio(course: Course) -> np.ndarray:
    """The length of each point's path divided by that of its chord: (N,), 1 on a straight line.

    >>> course = rj.theory.mmc_course(rj.centers.max_mahalanobis(3, 2), 12, batch_size=4, passes=5)
    >>> rj.theory.path_ratio(course).round(6).tolist() == [1.0] * 12
    True
    """
    steps = np.diff(course.positions, axis=0)
    chord = np.linalg.norm(course.positions[-1] - course.positions[0], axis=1)
    return np.linalg.norm(steps, axis=2).sum(0) / chord


def _passes(points: int, batch_size: int, passes: int, seed: int) -> Iterator[list[np.ndarray]]:
    """The batches of each pass: a permutation of the points, cut into equal parts."""
    check_number("batch_size", batch_size, 1, points)
    if points % batch_size:
        raise ValueError(f"batch_size must divide the {points} points, got {batch_size}")
    rng = np.random.default_rng(seed)
    for _ in range(passes):
        yield np.split(rng.permutation(points), points // batch_size)
