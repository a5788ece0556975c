"""WRN-d-k: Zagoruyko and Komodakis (2016), "Wide residual networks"."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from robustjax.models.nets.layers import Conv, he_fan_out
from robustjax.models.nets.residual import PreActBlock, Residual


def wide_resnet(
    depth: int, factor: int, width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """A stem of `width` (16) and three stages of (d - 4) / 6 blocks at (1, 2, 4) x k x `width`.

    Returns:
      (stem, body).

    Raises:
      ValueError: a depth that is not 6n + 4, or a factor of 0.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1 or factor < 1:
        raise ValueError(
            f"WRN-d-k needs d = 6n + 4 (10, 16, 22, 28, 34, 70) and k >= 1, not {depth}-{factor}"
        )
    widths = (factor * width, 2 * factor * width, 4 * factor * width)
    stem = Conv(width, dtype=dtype, kernel_init=he_fan_out)
    body = Residual(PreActBlock, widths, (blocks,) * 3, activation, he_fan_out, dtype, remat)
    return stem, body
