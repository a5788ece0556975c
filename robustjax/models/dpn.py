"""Dual path networks: Chen et al. (2017), as in pytorch-cifar."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.blocks import Stages
from robustjax.models.bottleneck import Bottleneck
from robustjax.models.layers import Conv

BLOCKS = {26: (2, 2, 2, 2), 92: (3, 4, 20, 3)}
DENSE = (16, 32, 24, 128)
GROUPS = 32


class DualPathBlock(Bottleneck):
    """Bottleneck that adds its first channels and appends its last `dense`, as a DenseNet does."""

    dense: int = 0
    first: bool = False

    def is_projected(self, x: jax.Array) -> bool:
        """In the first block of a stage only: what a stage gathers is no change of shape."""
        return self.first

    def join(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Add the first channels, then append x's others and y's."""
        d = self.features - self.dense
        return jnp.concatenate([x[..., :d] + y[..., :d], x[..., d:], y[..., d:]], -1)


def dpn(
    depth: int, width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """A stem of 2/3 `width` and four stages, of 32 groups of (1, 2, 4, 8) x `width` channels.

    They add (1, 2, 4, 8) x 8/3 `width` channels and append (16, 32, 24, 128) / 96 of `width` a
    block (`width` is 96).

    Returns:
      (stem, body).

    Raises:
      ValueError: there is no DPN of this depth, or the width is no multiple of 32.
    """
    if depth not in BLOCKS:
        raise ValueError(f"there is no DPN-{depth}; the depths are {', '.join(map(str, BLOCKS))}")
    if width % GROUPS:
        raise ValueError(f"the width of a DPN is a multiple of its {GROUPS} groups, not {width}")
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
