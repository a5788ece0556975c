"""Dual path networks: Chen et al. (2017), as in pytorch-cifar."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.nets.blocks import Stages
from robustjax.models.nets.bottleneck import Bottleneck
from robustjax.models.nets.layers import Conv

BLOCKS = {26: (2, 2, 2, 2), 92: (3, 4, 20, 3)}
DENSE = (16, 32, 24, 128)
GROUPS = 32


class DualPathBlock(Bottleneck):
    """Bottleneck that adds its first channels and appends the last `dense`, like a DenseNet."""

    dense: int = 0
    first: bool = False

    def is_projected(self, x: jax.Array) -> bool:
        """Only in the first block of a stage: appended channels need no projection."""
        return self.first

    def join(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Add the first channels, then append the rest of x and of y."""
        d = self.features - self.dense
        return jnp.concatenate([x[..., :d] + y[..., :d], x[..., d:], y[..., d:]], -1)


def dpn(
    depth: int, width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """A stem of 2/3 `width` and four stages with 32 groups of (1, 2, 4, 8) x `width` channels.

    The stages add (1, 2, 4, 8) x 8/3 `width` channels, and each block appends (16, 32, 24, 128) /
    96 of `width` (96 by default).

    Returns:
      (stem, body).

    Raises:
      ValueError: an unknown depth, or a width that is not a multiple of 32.
    """
    if depth not in BLOCKS:
        known = ", ".join(map(str, BLOCKS))
        raise ValueError(f"unknown depth of DPN: {depth}; the depths are {known}")
    if width % GROUPS:
        raise ValueError(f"the width of a DPN must be a multiple of {GROUPS} (groups), not {width}")
    stages = []
    for i, (count, dense) in enumerate(zip(BLOCKS[depth], DENSE, strict=True)):
        dense = dense * width // 96
        block = partial(
            DualPathBlock,
            features=2**i * 256 * width // 96 + dense,
            inner=2**i * width,
            groups=GROUPS,
            activation=activation,
            dtype=dtype,
            dense=dense,
        )
        stages.append((block(stride=1 + (i > 0), first=True), *[block(stride=1)] * (count - 1)))
    return Conv(64 * width // 96, dtype=dtype), Stages(tuple(stages), activation, dtype, remat)
