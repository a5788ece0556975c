"""Sample density in feature space, per distance between classes: one rod for all networks."""

from __future__ import annotations

import numpy as np

from robustjax import theory


def log_densities(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, k: int
) -> dict[str, np.ndarray]:
    """The log density (N,) of either set among the training features (N, d).

    The unit is the mean distance of two class means of the training features.
    """
    scale = np.linalg.norm(theory.unit_distance(train, labels)) / np.linalg.norm(train)
    return {
        "train": theory.knn_log_density(train * scale, k=k),
        "test": theory.knn_log_density(train * scale, test * scale, k=k),
    }
