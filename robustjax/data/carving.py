"""Splits carved out of a set: stratified by class, and the same on every machine."""

from __future__ import annotations

import numpy as np

VALIDATION = 1_000
"""The most validation examples that are carved out of train (Rice et al., 2020)."""


def carve(labels: np.ndarray, test: bool) -> dict[str, np.ndarray]:
    """Rows of a set for each split, ascending.

    Args:
      labels: (N,) of the set.
      test: whether a fifth is for testing; else nothing is.

    >>> {name: len(rows) for name, rows in carve(np.arange(40) % 4, test=False).items()}
    {'train': 36, 'validation': 4, 'test': 0, 'train+validation': 40}
    """
    held_out = stratified(labels, len(labels) // 5 if test else 0)
    rest = np.setdiff1d(np.arange(len(labels)), held_out)
    validation = rest[stratified(labels[rest], min(len(rest) // 10, VALIDATION))]
    return {
        "train": np.setdiff1d(rest, validation),
        "validation": validation,
        "test": held_out,
        "train+validation": rest,
    }


def stratified(labels: np.ndarray, size: int) -> np.ndarray:
    """`size` random rows, ascending, every class in its share.

    The k-th of a class's n examples, in random order, stands at (k + 1/2) / n; the sample is the
    `size` smallest. RandomState's stream is frozen (NEP 19), so no NumPy release moves the splits.
    """
    shuffled = np.random.RandomState(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    first = np.cumsum(counts) - counts
    of = labels[by_class]
    position = (np.arange(len(labels)) - first[of] + 0.5) / counts[of]
    return np.sort(by_class[np.argsort(position, kind="stable")[:size]])
