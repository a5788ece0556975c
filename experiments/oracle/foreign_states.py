"""Weights of a torch network that both sides can draw: no framework, only names and shapes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np

POSITIVE = ("running_var", "temperature", "std", "sigma")


def draw(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of these shapes by name: what matters is different from its initial value.

    Statistics and scales lie around 1, biases and means around 0, and a kernel keeps the size of
    what it is multiplied by. A tensor depends on its own name and the seed alone.
    """
    return {name: _draw(name, tuple(shape), seed) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng, leaf = np.random.default_rng([seed, zlib.crc32(name.encode())]), name.split(".")[-1]
    if leaf in ("num_batches_tracked", "flag_update_statistics"):
        return np.zeros(shape, np.int64)
    if leaf == "threshold":  # published ones are 0.15 to 0.25
        return np.asarray(rng.uniform(0.1, 0.3, shape), np.float32)
    around_one = leaf in POSITIVE or (leaf == "weight" and len(shape) == 1) or "gamma" in leaf
    if around_one or leaf == "layer_scale":
        return np.asarray(rng.uniform(0.5, 1.5, shape), np.float32)
    fan_in = math.prod(shape[1:]) if leaf.endswith("weight") and len(shape) > 1 else 1 / 0.09
    return np.asarray(rng.standard_normal(shape) / math.sqrt(fan_in), np.float32)
