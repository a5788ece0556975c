"""VGG with batch normalisation: Simonyan and Zisserman (2015), as in pytorch-cifar."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from robustjax.models.nets.blocks import ConvNorm, MaxPool, Stages
from robustjax.models.nets.layers import Conv

LAYERS = {11: (1, 1, 2, 2, 2), 13: (2,) * 5, 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(
    depth: int, width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """Five stages of 3x3 convolutions at (1, 2, 4, 8, 8) x `width`, each followed by a 2x2 pooling.

    The last pooling leaves a single pixel of a 32x32 image. One linear layer follows, where the
    original has three. The convolutions have biases although BN follows.

    Returns:
      (stem, body).

    Raises:
      ValueError: an unknown depth.
    """
    if depth not in LAYERS:
        known = ", ".join(map(str, LAYERS))
        raise ValueError(f"unknown depth of VGG: {depth}; the depths are {known}")
    stages = [
        [ConvNorm(factor * width, 3, activation, dtype, use_bias=True)] * count + [MaxPool()]
        for factor, count in zip((1, 2, 4, 8, 8), LAYERS[depth], strict=True)
    ]
    stages[0].pop(0)  # the stem, which Stages normalises
    body = Stages(tuple(map(tuple, stages)), activation, dtype, remat)
    return Conv(width, use_bias=True, dtype=dtype), body
