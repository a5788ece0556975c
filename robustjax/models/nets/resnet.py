"""Residual networks for small images: depth 6n + 2 in three narrow stages, and ResNet-18."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from robustjax.models.nets.layers import Conv, he_fan_out, torch_uniform
from robustjax.models.nets.residual import (
    ActivatedBlock,
    BasicBlock,
    Block,
    PooledShortcutBlock,
    PreActBlock,
    ProjectedBlock,
    Residual,
)


def resnet(
    depth: int,
    width: int,
    activation: str,
    dtype: Any,
    remat: bool,
    block: Block,
    first: Block | None = None,
) -> tuple[nn.Module, nn.Module]:
    """He et al. (2016): BasicBlock for "Deep residual learning", PreActBlock for the second paper.

    Returns:
      (stem, body).

    Raises:
      ValueError: the depth is not 6n + 2.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(
            f"the depth of a CIFAR ResNet must be 6n + 2 (8, 14, 20, 32, 56, 110), not {depth}"
        )
    widths = (width, 2 * width, 4 * width)
    stem = Conv(width, dtype=dtype, kernel_init=he_fan_out)
    body = Residual(block, widths, (blocks,) * 3, activation, he_fan_out, dtype, remat, first=first)
    return stem, body


def resnet_v1(depth: int, **options: Any) -> tuple[nn.Module, nn.Module]:
    """Activation after the addition, parameter-free shortcuts."""
    return resnet(depth, block=BasicBlock, **options)


def resnet_v2(depth: int, **options: Any) -> tuple[nn.Module, nn.Module]:
    """Activation before the convolutions, projections where the shape changes."""
    return resnet(depth, block=PreActBlock, **options)


def resnet_tf(depth: int, **options: Any) -> tuple[nn.Module, nn.Module]:
    """TensorFlow's CIFAR ResNet of 2016, on which Pang et al. (2018) train RCE.

    Like `resnet_v2`, but with shortcuts without parameters, a first block that activates before it
    branches, and an epsilon of 1e-3 in BatchNorm. By default it has leaky ReLU of slope 0.1 and a
    last layer initialised uniformly in +-sqrt(3 / D). Their images lie in [-1/2, 1/2]: mean 0.5,
    std 1. Unlike theirs, strided convolutions pad both sides of the image, as everywhere here.
    """
    return resnet(depth, block=PooledShortcutBlock, first=ActivatedBlock, **options)


def resnet_18(width: int, activation: str, dtype: Any, remat: bool) -> tuple[nn.Module, nn.Module]:
    """ResNet-18 for small images: a 3x3 stem without pooling, projected shortcuts.

    Four stages of two blocks at (1, 2, 4, 8) x `width`; PyTorch's default initialisation.

    Returns:
      (stem, body).
    """
    widths = (width, 2 * width, 4 * width, 8 * width)
    stem = Conv(width, dtype=dtype)
    body = Residual(ProjectedBlock, widths, (2, 2, 2, 2), activation, torch_uniform, dtype, remat)
    return stem, body
