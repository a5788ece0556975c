"""Vision transformers: Dosovitskiy et al. (2021), "An image is worth 16x16 words"."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.nets.blocks import Stage, run_blocks
from robustjax.models.nets.layers import BN, activation

DEPTH, HEAD = 12, 64
token_init = nn.initializers.normal(0.02)
linear = partial(nn.Dense, kernel_init=token_init)


class Patches(nn.Module):
    """A linear layer from each square of size x size pixels to a token."""

    features: int
    size: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H W / size^2, features)."""
        batch, height, width, channels = x.shape
        if height % self.size or width % self.size:
            raise ValueError(
                f"images of {height}x{width} pixels cannot be divided into patches of {self.size}x"
                f"{self.size}; choose another patch size, or pad the images"
            )
        rows, columns = height // self.size, width // self.size
        x = x.reshape(batch, rows, self.size, columns, self.size, channels)
        x = x.swapaxes(2, 3).reshape(batch, rows * columns, -1)
        return linear(self.features, dtype=self.dtype)(x)


class Encoder(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): the layer of a transformer.

    `heads` are those of the attention; None: heads of 64 entries.
    """

    activation: str
    dtype: Any
    heads: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, N, D) -> the same shape."""
        del bn  # LayerNorm has no statistics of batches
        norm = partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        batch, tokens, dim = x.shape
        heads = self.heads or max(1, dim // HEAD)
        qkv = linear(3 * dim, dtype=self.dtype, name="qkv")(norm(name="norm1")(x))
        q, k, v = jnp.moveaxis(qkv.reshape(batch, tokens, 3, heads, dim // heads), 2, 0)
        y = nn.dot_product_attention(q, k, v, force_fp32_for_softmax=True)
        x = x + linear(dim, dtype=self.dtype, name="out")(y.reshape(x.shape))
        y = linear(4 * dim, dtype=self.dtype, name="mlp1")(norm(name="norm2")(x))
        return x + linear(dim, dtype=self.dtype, name="mlp2")(activation(self.activation)(y))


class ViTBody(nn.Module):
    """Prepend a class token, add learned positions, run the layers, normalise the class token."""

    stages: tuple[Stage, ...]
    dtype: Any
    remat: bool = False

    @nn.compact
    def __call__(self, h: jax.Array, bn: BN) -> jax.Array:
        """Tokens (B, N, D) -> float32 features (B, D)."""
        batch, tokens, dim = h.shape
        first = self.param("class_token", token_init, (1, 1, dim), jnp.float32)
        positions = self.param("positions", token_init, (1, tokens + 1, dim), jnp.float32)
        first = jnp.broadcast_to(first.astype(self.dtype), (batch, 1, dim))
        h = jnp.concatenate([first, h], 1)
        h = h + jnp.broadcast_to(positions.astype(self.dtype), h.shape)
        h = run_blocks(self, self.stages, h, bn)
        h = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(h[:, 0])
        return h.astype(jnp.float32)


def vit(
    patch: int, width: int, activation: str, dtype: Any, remat: bool
) -> tuple[nn.Module, nn.Module]:
    """Twelve layers with tokens of `width` entries and heads of 64; no BN and no dropout.

    The positions fix the image size: other sizes than that of `init` are errors. Weights start
    normal with standard deviation 0.02 and biases at 0, as in later training recipes.

    Returns:
      (stem, body).

    Raises:
      ValueError: a patch size of 0, or a width that is not a multiple of 64.
    """
    if patch < 1:
        raise ValueError(f"the side of a patch must be at least 1 pixel, got {patch}")
    if width > HEAD and width % HEAD:
        raise ValueError(f"the width of a ViT must be a multiple of {HEAD} (heads), not {width}")
    body = ViTBody(((Encoder(activation, dtype),) * DEPTH,), dtype, remat)
    return Patches(width, patch, dtype), body
