"""Free points in the plane under the MMC loss and under Center loss: the talk's animations.

A network that could place every feature freely would move it along the negative gradient of its
loss. So the points themselves are the parameters, of plain SGD that visits them in batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from robustjax.config import check_number


class Course(NamedTuple):
    """Where some points were, after every pass over all points."""

    positions: np.ndarray
    """(passes + 1, N, d), the start first."""
    labels: np.ndarray
    """(N,)."""


def start(centers: np.ndarray, points: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, d) from a normal as wide as the centers, and labels (N,) that ignore them."""
    rng = np.random.default_rng(seed)
    width = np.linalg.norm(centers, axis=1).mean()
    labels = rng.integers(len(centers), size=points)
    return width * rng.standard_normal((points, centers.shape[1])), labels


def mmc_course(
    centers: np.ndarray, points: int, batch_size: int, passes: int, lr: float = 0.1, seed: int = 0
) -> Course:
    """SGD on sum |z - m_y|^2 / 2 over the batch: z - m_y shrinks to 1 - lr of itself, always.

    Args:
      centers: (L, d), of `centers.max_mahalanobis` or `centers.packing`.
      points: N; they start where `start` says.
      batch_size: a divisor of N.
      passes: over all points, in an order drawn anew.
      lr: the learning rate of a point's own loss.
      seed: of start and order.

    Raises:
      ValueError: a batch size that does not divide N.

    Guarantees:
      A visited point comes nearer by the factor 1 - lr, on a straight line to its center.
      The course does not depend on the batch size.
    """
    features, labels = start(centers, points, seed)
    positions = [features.copy()]
    for batches in _passes(points, batch_size, passes, seed):
        for batch in batches:
            features[batch] -= lr * (features[batch] - centers[labels[batch]])
        positions.append(features.copy())
    return Course(np.stack(positions), labels)


def center_loss_course(
    centers: np.ndarray,
    points: int,
    batch_size: int,
    passes: int,
    lr: float = 0.1,
    weight: float = 1.0,
    seed: int = 0,
) -> Course:
    """SGD on softmax cross-entropy plus Center loss, whose head and centers are learned as well.

        loss of a point = cross-entropy(W z + b, y) + weight |z - c_y|^2 / 2

    W and b follow the batch's mean gradient; the centers c follow Wen et al.'s rule, half the way
    to the batch's points of their class, which is counted once more than there are.

    Args:
      centers: (L, d): only their number and norm matter here, which give `start` its scale.
      points, batch_size, passes, lr, seed: as in `mmc_course`; the start is the same.
      weight: lambda of the Center loss.

    Raises:
      ValueError: a batch size that does not divide N.

    References:
      Wen et al., "A discriminative feature learning approach for deep face recognition", 2016.

    Guarantees:
      The start is that of `mmc_course`; the course depends on the batch size.
    """
    features, labels = start(centers, points, seed)
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


def contraction_deviation(course: Course, centers: np.ndarray, lr: float = 0.1) -> float:
    """The largest | |z' - m_y| / |z - m_y| - (1 - lr) | of any point and pass of an `mmc_course`.

    Distances below 1e-9 are left out: there the rounding of z shows.

    Guarantees:
      Zero to 1e-6, for every batch size.
    """
    distances = np.linalg.norm(course.positions - centers[course.labels], axis=2)
    far = distances[:-1] > 1e-9
    return float(np.abs(distances[1:][far] / distances[:-1][far] - (1 - lr)).max())


def path_ratio(course: Course) -> np.ndarray:
    """The length of every point's path over that of its chord: (N,), 1 on a straight line."""
    steps = np.diff(course.positions, axis=0)
    chord = np.linalg.norm(course.positions[-1] - course.positions[0], axis=1)
    return np.linalg.norm(steps, axis=2).sum(0) / chord


def _passes(points: int, batch_size: int, passes: int, seed: int) -> Iterator[list[np.ndarray]]:
    """The batches of every pass: a permutation of the points, cut into equal parts."""
    check_number("batch_size", batch_size, 1, points)
    if points % batch_size:
        raise ValueError(f"batch_size must divide the {points} points, got {batch_size}")
    rng = np.random.default_rng(seed)
    for _ in range(passes):
        yield np.split(rng.permutation(points), points // batch_size)
