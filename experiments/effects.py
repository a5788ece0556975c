"""An effect over seeds and its interval: used by claims.py and at_seeds.py."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from scipy import stats


def effect(better: Iterable[float], worse: Iterable[float]) -> tuple[str, str]:
    """Accuracies of the same seeds with and without -> the difference in points, the verdict."""
    pairs = 100 * (np.array([*better]) - np.array([*worse]))
    mean, deviation = pairs.mean(), pairs.std(ddof=1)
    half = stats.t.ppf(0.975, len(pairs) - 1) * deviation / math.sqrt(len(pairs))
    verdict = "holds" if mean > half else "falls" if mean < -half else "open"
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})", verdict
