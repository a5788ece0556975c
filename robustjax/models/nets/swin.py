"""Swin: Liu et al. (2021), "Swin transformer: hierarchical vision transformer using windows"."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from robustjax.models.nets.blocks import Stage, run_blocks
from robustjax.models.nets.layers import BN, activation

EPSILON = 1e-5


class WindowAttention(nn.Module):
    """Attention within each window of size x size tokens, with a learned bias for each offset.

    If `shift`, the windows of the image moved by size / 2 in both directions, of which those at
    its border fall apart into tokens that do not see each other.
    """

    heads: int
    size: int
    shift: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, D) -> the same shape."""
        batch, height, width, dim = x.shape
        n = self.size
        if height % n or width % n:
            raise ValueError(
                f"{height}x{width} tokens cannot be divided into windows of {n}x{n}; resize the "
                "images to those that the network was trained on"
            )
        down, right = (n // 2 if self.shift and side > n else 0 for side in (height, width))
        h = jnp.roll(x, (-down, -right), (1, 2))
        h = _windows(h, n).reshape(-1, n * n, dim)
        qkv = nn.Dense(3 * dim, dtype=self.dtype, name="qkv")(h)
        q, k, v = jnp.moveaxis(qkv.reshape(*h.shape[:2], 3, self.heads, dim // self.heads), 2, 0)
        shape = ((2 * n - 1) ** 2, self.heads)
        table = self.param("offsets", nn.initializers.normal(0.02), shape, jnp.float32)
        bias = jnp.moveaxis(table[_offsets(n)], -1, 0)[None]
        apart = _apart(height, width, n, down, right)
        bias = bias + jnp.tile(jnp.where(apart, -100.0, 0.0), (batch, 1, 1))[:, None]
        y = nn.dot_product_attention(q, k, v, bias, force_fp32_for_softmax=True)
        y = nn.Dense(dim, dtype=self.dtype, name="out")(y.reshape(h.shape))
        y = y.reshape(batch, height // n, width // n, n, n, dim).swapaxes(2, 3)
        return jnp.roll(y.reshape(x.shape), (down, right), (1, 2))


def _windows(x: jax.Array | np.ndarray, n: int) -> Any:
    """(B, H, W, D) -> (B, H / n, W / n, n, n, D)."""
    batch, height, width, dim = x.shape
    return x.reshape(batch, height // n, n, width // n, n, dim).swapaxes(2, 3)


def _offsets(n: int) -> np.ndarray:
    """The number of the offset between two tokens of a window: (n^2, n^2)."""
    row, column = np.divmod(np.arange(n * n), n)
    down, right = (a[:, None] - a[None] + n - 1 for a in (row, column))
    return down * (2 * n - 1) + right


def _apart(height: int, width: int, n: int, down: int, right: int) -> np.ndarray:
    """Whether two tokens of a window come from opposite borders: (windows, n^2, n^2)."""

    def part(side, shift):
        at = np.arange(side)
        return (at >= side - n).astype(int) + (at >= side - shift) if shift else 0 * at

    parts = 3 * part(height, down)[:, None] + part(width, right)[None]
    parts = _windows(parts[None, ..., None], n).reshape(-1, n * n)
    return parts[:, :, None] != parts[:, None]


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    heads: int
    size: int
    shift: bool
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, D) -> the same shape."""
        del bn  # LayerNorm has no statistics of batches
        norm, dim = partial(nn.LayerNorm, EPSILON, dtype=self.dtype), x.shape[-1]
        attention = WindowAttention(self.heads, self.size, self.shift, self.dtype, name="attention")
        x = x + attention(norm(name="norm1")(x))
        y = nn.Dense(4 * dim, dtype=self.dtype, name="mlp1")(norm(name="norm2")(x))
        return x + nn.Dense(dim, dtype=self.dtype, name="mlp2")(activation(self.activation)(y))


class Merge(nn.Module):
    """The norm of each square of 2x2 tokens, then a linear layer to twice the channels of one."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, D) -> (B, H / 2, W / 2, 2 D); a last odd row or column gets a twin of zeros."""
        batch, height, width, dim = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        x = _windows(x, 2).swapaxes(3, 4).reshape(batch, -(-height // 2), -(-width // 2), 4 * dim)
        x = nn.LayerNorm(EPSILON, dtype=self.dtype, name="norm")(x)
        return nn.Dense(2 * dim, use_bias=False, dtype=self.dtype, name="linear")(x)


class SwinBody(nn.Module):
    """norm, stages of blocks with a `Merge` between them, norm, the mean of the tokens."""

    stages: tuple[Stage, ...]
    dtype: Any
    remat: bool = False

    @nn.compact
    def __call__(self, h: jax.Array, bn: BN) -> jax.Array:
        """Stem output -> float32 features (B, D)."""
        h = nn.LayerNorm(EPSILON, dtype=self.dtype, name="stem_norm")(h)
        for i, stage in enumerate(self.stages):
            h = Merge(self.dtype, name=f"down{i}")(h) if i else h
            h = run_blocks(self, [stage], h, bn, first=i + 1)
        h = nn.LayerNorm(EPSILON, dtype=self.dtype, name="norm")(h)
        return jnp.mean(h.astype(jnp.float32), (1, 2))
