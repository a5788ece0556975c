"""RegNet: Radosavovic et al. (2020), "Designing network design spaces", as in pytorch-cifar."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from flax import linen as nn

from robustjax.models.nets.blocks import Stages
from robustjax.models.nets.bottleneck import Bottleneck
from robustjax.models.nets.layers import Conv

SIZES = {200: ((3, 7, 19, 46), (1, 1, 4, 7), 8), 400: ((2, 4, 10, 24), (1, 2, 7, 12), 16)}
"""Megaflops -> groups of each stage, its blocks, and the channels of a group."""


def regnet(
    kind: Literal["x", "y"], megaflops: int, width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """Bottlenecks whose three convolutions are equally wide, in groups of equally many channels.

    Kind y has gates. As in pytorch-cifar the stem has 64 channels at the default `width`, where the
    paper has 32, and only the last two stages halve the image.

    Returns:
      (stem, body).

    Raises:
      ValueError: an unknown size, or a width that is not a multiple of the first stage's groups.
    """
    if megaflops not in SIZES:
        raise ValueError(
            f"unknown size of RegNet: {megaflops} MF; the sizes are {', '.join(map(str, SIZES))}"
        )
    groups, blocks, own = SIZES[megaflops]
    size, rest = divmod(width, groups[0])
    if rest:
        raise ValueError(f"the width of this RegNet must be a multiple of {groups[0]}, not {width}")
    block = partial(Bottleneck, activation=activation, dtype=dtype, gated=kind == "y")
    stages = []
    for i, (n, count) in enumerate(zip(groups, blocks, strict=True)):
        first = block(n * size, n * size, 1 + (i > 1), n)
        stages.append((first, *[block(n * size, n * size, 1, n)] * (count - 1)))
    return Conv(64 * size // own, dtype=dtype), Stages(tuple(stages), activation, dtype, remat)
