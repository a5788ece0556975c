"""Class centers in feature space: Max-Mahalanobis centers and their geometry."""

from __future__ import annotations

import numpy as np

from robustjax.config import check_number


def max_mahalanobis(num_classes: int, dim: int, radius: float = 1.0) -> np.ndarray:
    """The centers that maximise the smallest pairwise distance within a ball: a regular simplex.

    With m_j = sqrt(L (L - j) / ((L - 1) (L - j + 1))), row j of the unit simplex has m_j at column
    j, every later row -m_j / (L - j) there, and the rest is zero: the Cholesky factor of the Gram
    matrix L/(L-1) I - 1/(L-1) 11^T, in closed form.

    Args:
      num_classes: L >= 2.
      dim: of the features, at least L - 1.
      radius: the norm of every center, C_MM; "MMC-10" has 10.

    Returns:
      (L, dim) float32, the center of class i in row i.

    Raises:
      ValueError: L < 2, dim < 1, dim < L - 1, or a radius that is not a positive number.

    References:
      Pang et al., "Max-Mahalanobis linear discriminant analysis networks", 2018, Algorithm 1, a
        recursion; in floating point it leaves a rounding error as the last entry, which is 0 here.

    Guarantees:
      All centers have norm `radius`, and they sum to zero.
      All pairs have the distance radius sqrt(2 L / (L - 1)); no other centers do better.
    """
    check_size(num_classes, dim, radius)
    if dim < num_classes - 1:
        raise ValueError(
            f"{num_classes} equidistant centers need {num_classes - 1} dimensions, got {dim}: "
            "take more dimensions, or the centers of `packing`"
        )
    left = num_classes - np.arange(1.0, num_classes)  # L - j
    diagonal = np.sqrt(num_classes * left / ((num_classes - 1) * (left + 1)))
    simplex = np.tril(np.broadcast_to(-diagonal / left, (num_classes, num_classes - 1)), -1)
    np.fill_diagonal(simplex, diagonal)
    centers = np.zeros((num_classes, dim), np.float32)
    centers[:, : num_classes - 1] = radius * simplex
    return centers


def random(num_classes: int, dim: int, radius: float = 1.0, seed: int = 0) -> np.ndarray:
    """Centers in independent uniform directions: what the simplex is compared with.

    Args:
      num_classes: L >= 2.
      dim: of the features.
      radius: the norm of every center.
      seed: of the directions.

    Returns:
      (L, dim) float32, the center of class i in row i.

    Raises:
      ValueError: L < 2, dim < 1, or a radius that is not a positive number.

    Guarantees:
      All centers have norm `radius`.
      The same seed gives the same centers on every machine and with every release of NumPy.
    """
    check_size(num_classes, dim, radius)
    # a trained model finds its centers again by their seed; RandomState's stream is frozen (NEP 19)
    directions = np.random.RandomState(seed).standard_normal((num_classes, dim))
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    return (radius * directions / norms).astype(np.float32)


def check_size(num_classes: int, dim: int, radius: float) -> None:
    """Raise ValueError unless there can be `num_classes` centers of this norm."""
    check_number("num_classes", num_classes, 2)
    check_number("dim", dim, 1)
    check_number("radius", radius)
    if not 0 < radius < np.inf:
        raise ValueError(f"radius must be a positive number, got {radius}")
