"""ResNeXt-29: Xie et al. (2017), "Aggregated residual transformations", as in pytorch-cifar."""

from __future__ import annotations

from functools import partial
from typing import Any

from flax import linen as nn

from robustjax.models.nets.blocks import Stages
from robustjax.models.nets.bottleneck import Bottleneck
from robustjax.models.nets.layers import Conv


def resnext_29(
    cardinality: int, group_width: int, width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """ResNeXt-29 (cardinality x group_width): a 1x1 stem of `width` and three stages of three.

    The 3x3 convolutions of a stage have (1, 2, 4) x cardinality x group_width channels, and its
    outputs twice as many. The paper has a 3x3 stem and outputs of four times as many.

    Returns:
      (stem, body).

    Raises:
      ValueError: a cardinality or group width of 0.
    """
    if cardinality < 1 or group_width < 1:
        raise ValueError(
            f"the groups of ResNeXt-29 must be at least 1x1, not {cardinality}x{group_width}"
        )
    block = partial(Bottleneck, groups=cardinality, activation=activation, dtype=dtype)
    stages = []
    for i in range(3):
        inner = 2**i * cardinality * group_width
        first = block(2 * inner, inner, 1 + (i > 0))
        stages.append((first, *[block(2 * inner, inner, 1)] * 2))
    return Conv(width, 1, dtype=dtype), Stages(tuple(stages), activation, dtype, remat)
