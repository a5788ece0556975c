"""Inverted residual blocks, wide inside and narrow outside: MobileNetV2 and EfficientNet-B0."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from flax import linen as nn

from robustjax.models.nets.blocks import ConvNorm, Gate, Stages
from robustjax.models.nets.layers import BN, Conv


class InvertedBlock(nn.Module):
    """conv1x1-BN-act, depthwise conv-BN-act, [gate], conv1x1-BN, plus the input at stride 1.

    Sandler et al. (2018), "MobileNetV2".

    Args:
      features: channels of the output.
      expansion: the ratio of the inner channels to those of the input.
      kernel_size, stride: of the depthwise convolution.
      activation, dtype: see `Stages`.
      gate: the ratio of the gate's channels to those of the input; None: no gate.
      projected: as in pytorch-cifar's MobileNetV2, the shortcut has a 1x1 convolution and BN where
        the channels change, and the first convolution exists even if it expands nothing.
    """

    features: int
    expansion: int
    kernel_size: int
    stride: int
    activation: str
    dtype: Any
    gate: float | None = None
    projected: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
        act = partial(ConvNorm, activation=self.activation, dtype=self.dtype)
        linear = partial(act, activation=None)
        channels = x.shape[-1]
        inner, y = self.expansion * channels, x
        if self.expansion != 1 or self.projected:
            y = act(inner, 1, name="expand")(y, bn)
        y = act(inner, self.kernel_size, stride=self.stride, groups=inner, name="depthwise")(y, bn)
        if self.gate is not None:
            hidden = max(1, int(self.gate * channels))
            y = Gate(hidden, self.activation, self.dtype, name="gate")(y)
        y = linear(self.features, 1, name="project")(y, bn)
        if self.stride != 1:
            return y
        if channels == self.features:
            return x + y
        return y + linear(self.features, 1, name="shortcut")(x, bn) if self.projected else y


MOBILENET_V2 = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 1),
    (6, 32, 3, 3, 2),
    (6, 64, 4, 3, 2),
    (6, 96, 3, 3, 1),
    (6, 160, 3, 3, 2),
    (6, 320, 1, 3, 1),
)
EFFICIENTNET_B0 = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
"""For each stage: expansion, channels for a stem of 32, blocks, kernel size, stride."""


def _stages(table, width, **options):
    for expansion, channels, count, size, stride in table:
        block = partial(InvertedBlock, max(1, channels * width // 32), expansion, size, **options)
        yield block(stride=stride), *[block(stride=1)] * (count - 1)


def mobilenet_v2(
    width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """Sandler et al. (2018), as in pytorch-cifar: the image is halved three times, not five.

    Channels are those of the paper times `width` / 32.

    Returns:
      (stem, body).
    """
    blocks = _stages(MOBILENET_V2, width, activation=activation, dtype=dtype, projected=True)
    last = (ConvNorm(40 * width, 1, activation, dtype),)
    body = Stages((*blocks, last), activation, dtype, remat)
    return Conv(width, dtype=dtype), body


def efficientnet_b0(
    width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """Tan and Le (2019), as in pytorch-cifar: the stem has stride 1; there is no last convolution.

    Channels are those of the paper times `width` / 32. There is no dropout or stochastic depth, so
    that the network is a function of its weights and images.

    Returns:
      (stem, body).
    """
    blocks = _stages(EFFICIENTNET_B0, width, activation=activation, dtype=dtype, gate=0.25)
    return Conv(width, dtype=dtype), Stages(tuple(blocks), activation, dtype, remat)
