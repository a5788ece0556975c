"""ConvNeXt: Liu et al. (2022), "A ConvNet for the 2020s"."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.nets.blocks import Stage, run_blocks
from robustjax.models.nets.layers import BN, Conv, activation

EPSILON = 1e-6


class ConvNeXtBlock(nn.Module):
    """conv7x7 of each channel, norm, linear to 4 C, act, linear to C, scaled, plus the input."""

    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> the same shape."""
        del bn  # LayerNorm has no statistics of batches
        channels = x.shape[-1]
        depthwise = Conv(channels, 7, use_bias=True, dtype=self.dtype, groups=channels, name="conv")
        y = nn.LayerNorm(EPSILON, dtype=self.dtype, name="norm")(depthwise(x))
        y = nn.Dense(4 * channels, dtype=self.dtype, name="mlp1")(y)
        y = nn.Dense(channels, dtype=self.dtype, name="mlp2")(activation(self.activation)(y))
        gamma = self.param("gamma", nn.initializers.constant(1e-6), (channels,), jnp.float32)
        return x + y * gamma.astype(self.dtype).reshape(1, 1, 1, -1)


class Halve(nn.Module):
    """norm, then a linear layer on each square of 2x2 pixels."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H // 2, W // 2, features)."""
        x = nn.LayerNorm(EPSILON, dtype=self.dtype, name="norm")(x)
        return Conv(self.features, 2, 2, True, self.dtype, padding=0, name="conv")(x)


class ConvNeXtBody(nn.Module):
    """norm, stages of blocks with a `Halve` between them, the spatial mean, norm."""

    stages: tuple[Stage, ...]
    widths: tuple[int, ...]
    dtype: Any
    remat: bool = False
    stem_norm: bool = True

    @nn.compact
    def __call__(self, h: jax.Array, bn: BN) -> jax.Array:
        """Stem output -> float32 features (B, widths[-1])."""
        if self.stem_norm:
            h = nn.LayerNorm(EPSILON, dtype=self.dtype, name="stem_norm")(h)
        for i, (stage, width) in enumerate(zip(self.stages, self.widths, strict=True)):
            h = Halve(width, self.dtype, name=f"down{i}")(h) if i else h
            h = run_blocks(self, [stage], h, bn, first=i + 1)
        h = jnp.mean(h.astype(jnp.float32), (1, 2))
        return nn.LayerNorm(EPSILON, name="norm")(h)


class ConvStem(nn.Module):
    """conv3x3-norm-act several times: Singh, Croce and Hein (2023), before a ConvNeXt or a ViT.

    Args:
      widths: channels of each convolution.
      strides: of each convolution.
      out: outputs of a linear layer for every pixel after them; None: there is none.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...]
    activation: str
    dtype: Any
    out: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H / (product of the strides), ..., widths[-1] or out)."""
        conv = partial(Conv, use_bias=True, dtype=self.dtype)
        for i, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True), 1):
            x = conv(width, 3, stride, name=f"conv{i}")(x)
            x = nn.LayerNorm(EPSILON, dtype=self.dtype, name=f"norm{i}")(x)
            x = activation(self.activation)(x)
        return x if self.out is None else conv(self.out, 1, name="last")(x)
