"""GoogLeNet with batch normalisation: Szegedy et al. (2015), as in pytorch-cifar."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.nets.blocks import ConvNorm, MaxPool, Stages
from robustjax.models.nets.layers import BN, Conv


class Inception(nn.Module):
    """Four parallel branches: 1x1; 1x1, 3x3; 1x1, two 3x3; 3x3 max-pooling, 1x1.

    Args:
      one: channels of the first branch.
      three: channels of the 1x1 and the 3x3 convolution of the second branch.
      five: channels of the 1x1 and the 3x3 convolutions of the third branch, whose two 3x3
        convolutions replace one of 5x5.
      pool: channels of the last branch.
      activation, dtype: see `Stages`.
    """

    one: int
    three: tuple[int, int]
    five: tuple[int, int]
    pool: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, one + three[1] + five[1] + pool)."""
        conv = partial(ConvNorm, activation=self.activation, dtype=self.dtype, use_bias=True)
        one = conv(self.one, 1, name="one")(x, bn)
        three = conv(self.three[0], 1, name="three1")(x, bn)
        three = conv(self.three[1], 3, name="three2")(three, bn)
        five = conv(self.five[0], 1, name="five1")(x, bn)
        five = conv(self.five[1], 3, name="five2")(five, bn)
        five = conv(self.five[1], 3, name="five3")(five, bn)
        pooled = conv(self.pool, 1, name="pool")(nn.max_pool(x, (3, 3), (1, 1), "SAME"), bn)
        return jnp.concatenate([one, three, five, pooled], -1)


CHANNELS = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""The channels of the modules of each stage for a stem of 192: one, three, five and pool."""


def googlenet(width: int, activation: str, dtype: Any, remat: bool) -> tuple[nn.Module, nn.Module]:
    """A 3x3 stem of `width` (192) and nine Inception modules, with poolings after the 2nd and 7th.

    All channels are the paper's times `width` / 192. Unlike the paper's, the network has no larger
    stem, 5x5 convolutions or auxiliary classifiers. Convolutions have biases although BN follows.

    Returns:
      (stem, body).
    """

    def block(channels):
        one, in3, out3, in5, out5, pool = (max(1, c * width // 192) for c in channels)
        return Inception(one, (in3, out3), (in5, out5), pool, activation, dtype)

    stages = [tuple(map(block, stage)) for stage in CHANNELS]
    stages = [*((*stage, MaxPool(3)) for stage in stages[:-1]), stages[-1]]
    body = Stages(tuple(stages), activation, dtype, remat)
    return Conv(width, use_bias=True, dtype=dtype), body
