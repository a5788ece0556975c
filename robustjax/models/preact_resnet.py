"""PreActResNet-18, the field's standard network for CIFAR: four stages of two blocks."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from robustjax.models.layers import Conv, torch_uniform
from robustjax.models.residual import PreActBlock, Residual


def preact_resnet_18(
    width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """Widths (1, 2, 4, 8) x `width`, PyTorch's default initialisation, 3x3 stem without pooling.

    Returns:
      (stem, body).
    """
    widths = (width, 2 * width, 4 * width, 8 * width)
    stem = Conv(width, dtype=dtype)
    body = Residual(PreActBlock, widths, (2, 2, 2, 2), activation, torch_uniform, dtype, remat)
    return stem, body
