"""DenseNet-BC: Huang et al. (2017), as in pytorch-cifar."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.nets.blocks import Stages
from robustjax.models.nets.layers import BN, BatchNorm, Conv, activation

LAYERS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}


class DenseBlock(nn.Module):
    """Prepend `growth` channels from BN-act-conv1x1 (4 growth channels) and BN-act-conv3x3."""

    growth: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, growth + C)."""
        act = activation(self.activation)
        y = act(BatchNorm(self.dtype, name="norm1")(x, bn))
        y = Conv(4 * self.growth, 1, dtype=self.dtype, name="conv1")(y)
        y = act(BatchNorm(self.dtype, name="norm2")(y, bn))
        y = Conv(self.growth, 3, dtype=self.dtype, name="conv2")(y)
        return jnp.concatenate([y, x], -1)


class Transition(nn.Module):
    """BN-act-conv1x1 to half the channels, then the mean of 2x2 pixels."""

    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C / 2)."""
        y = activation(self.activation)(BatchNorm(self.dtype, name="norm")(x, bn))
        y = Conv(x.shape[-1] // 2, 1, dtype=self.dtype, name="conv")(y)
        return nn.avg_pool(y, (2, 2), (2, 2), padding="SAME", count_include_pad=False)


def densenet(
    depth: int, width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """A 3x3 stem of `width` (64), then four stages of layers that grow by half of it.

    Returns:
      (stem, body).

    Raises:
      ValueError: an unknown depth, or an odd width.
    """
    if depth not in LAYERS:
        known = ", ".join(map(str, LAYERS))
        raise ValueError(f"unknown depth of DenseNet: {depth}; the depths are {known}")
    if width % 2:
        raise ValueError(f"the width of a DenseNet (twice its growth) must be even, not {width}")
    layer, transition = DenseBlock(width // 2, activation, dtype), Transition(activation, dtype)
    stages = [(layer,) * count for count in LAYERS[depth]]
    stages = [*((*stage, transition) for stage in stages[:-1]), stages[-1]]
    body = Stages(tuple(stages), activation, dtype, remat, pre_activation=True)
    return Conv(width, dtype=dtype), body
