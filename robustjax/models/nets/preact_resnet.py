"""PreActResNet-18, the field's standard network for CIFAR, PreActResNet-50 and SENet-18."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from robustjax.models.nets.layers import Conv, torch_uniform
from robustjax.models.nets.residual import (
    Block,
    PreActBlock,
    PreActBottleneck,
    Residual,
    SqueezeBlock,
)


def preact_resnet(
    width: int,
    activation: str,
    dtype: Any,
    remat: bool,
    block: Block,
    counts: tuple[int, ...],
    expansion: int = 1,
) -> tuple[nn.Module, nn.Module]:
    """Four stages of (1, 2, 4, 8) x `expansion` x `width` channels, 3x3 stem without pooling.

    PyTorch's default initialisation.

    Returns:
      (stem, body).
    """
    widths = tuple(2**i * expansion * width for i in range(4))
    body = Residual(block, widths, counts, activation, torch_uniform, dtype, remat)
    return Conv(width, dtype=dtype), body


def preact_resnet_18(**options: Any) -> tuple[nn.Module, nn.Module]:
    """He et al. (2016), "Identity mappings", as in pytorch-cifar but with a last BN-act."""
    return preact_resnet(block=PreActBlock, counts=(2, 2, 2, 2), **options)


def preact_resnet_50(**options: Any) -> tuple[nn.Module, nn.Module]:
    """The same with bottlenecks: (4, 8, 16, 32) x `width` channels, inside a quarter of them."""
    return preact_resnet(block=PreActBottleneck, counts=(3, 4, 6, 3), expansion=4, **options)


def senet_18(**options: Any) -> tuple[nn.Module, nn.Module]:
    """Hu et al. (2018), as in pytorch-cifar: a PreActResNet-18 with gates of channels / 16."""
    return preact_resnet(block=SqueezeBlock, counts=(2, 2, 2, 2), **options)
