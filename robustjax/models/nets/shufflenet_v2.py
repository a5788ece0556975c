"""ShuffleNetV2: Ma et al. (2018), as in pytorch-cifar."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.nets.blocks import ConvNorm, Stages
from robustjax.models.nets.layers import BN, Conv


class ShuffleBlock(nn.Module):
    """Half the channels pass conv1x1-BN-act, depthwise-BN, conv1x1-BN-act; then all are shuffled.

    At stride 2 both halves see the whole input, and the other passes depthwise-BN, conv1x1-BN-act.
    """

    features: int
    stride: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
        act = partial(ConvNorm, activation=self.activation, dtype=self.dtype)
        linear = partial(act, activation=None, stride=self.stride)
        half = self.features // 2
        if self.stride == 1:
            left, right = x[..., :half], x[..., half:]
        else:
            channels = x.shape[-1]
            left = linear(channels, 3, groups=channels, name="left_depthwise")(x, bn)
            left, right = act(half, 1, name="left")(left, bn), x
        right = act(half, 1, name="conv1")(right, bn)
        right = linear(half, 3, groups=half, name="depthwise")(right, bn)
        right = act(half, 1, name="conv2")(right, bn)
        return jnp.stack([left, right], -1).reshape(*left.shape[:-1], self.features)


def shufflenet_v2(
    width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """The network of factor 1: three stages of 4, 8 and 4 blocks at (1, 2, 4) x `width` (116).

    The stem has 24 / 116 of `width`, stride 1 and no pooling.

    Returns:
      (stem, body).

    Raises:
      ValueError: the width is odd.
    """
    if width % 2:
        raise ValueError(f"the width of ShuffleNetV2 must be even, not {width}")
    stages = []
    for factor, count in ((1, 4), (2, 8), (4, 4)):
        block = partial(ShuffleBlock, factor * width, activation=activation, dtype=dtype)
        stages.append((block(stride=2), *[block(stride=1)] * (count - 1)))
    stages.append((ConvNorm(max(1, 1024 * width // 116), 1, activation, dtype),))
    stem = Conv(max(1, 24 * width // 116), dtype=dtype)
    return stem, Stages(tuple(stages), activation, dtype, remat)
