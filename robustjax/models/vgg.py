"""VGG with batch normalisation: Simonyan and Zisserman (2015), as in pytorch-cifar."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from robustjax.models.blocks import ConvNorm, MaxPool, Stages
from robustjax.models.layers import Conv

LAYERS = {11: (1, 1, 2, 2, 2), 13: (2,) * 5, 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(
    depth: int, width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """Five stages of 3x3 convolutions at (1, 2, 4, 8, 8) x `width`, each before a 2x2 pooling.

    One linear layer reads the last pooling, of a single pixel at 32x32, where the original has
    three. The convolutions keep their biases although BN follows.

    Returns:
      (stem, body).

    Raises:
      ValueError: there is no VGG of this depth.
    """
    if depth not in LAYERS:
        raise ValueError(f"there is no VGG-{depth}; the depths are {', '.join(map(str, LAYERS))}")
    stages = [
        [ConvNorm(factor * width, 3, activation, dtype, use_bias=True)] * count + [MaxPool()]
        for factor, count in zip((1, 2, 4, 8, 8), LAYERS[depth], strict=True)
    ]
    stages[0].pop(0)  # the stem, which Stages normalises
    body = Stages(tuple(map(tuple, stages)), activation, dtype, remat)
    return Conv(width, use_bias=True, dtype=dtype), body
