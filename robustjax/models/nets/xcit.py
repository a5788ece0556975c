"""XCiT: El-Nouby et al. (2021), transformers whose attention mixes channels instead of tokens.

Debenedetti, Sehwag and Mittal (2022) train them adversarially, on small images with patches of 4.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from robustjax.models.nets.blocks import ConvNorm, Stage, run_blocks
from robustjax.models.nets.layers import BN, BatchNorm, Conv, activation

EPSILON = 1e-6
SINES = 32
"""Pairs of sine and cosine, of all their frequencies together, of a token's row; so of its column.

A learned linear map of these 64 numbers is added to each token.
"""


class Pixels(nn.Module):
    """A stem that passes the images on."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> the same."""
        return x


class PatchEmbedding(nn.Module):
    """conv3x3-BN several times with act between them, and the tokens' positions.

    Args:
      widths: channels of each convolution.
      patch: side of the square of pixels that becomes a token: the last convolutions have stride 2.
    """

    widths: tuple[int, ...]
    patch: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """Images (B, H, W, C) -> (B, H / patch, W / patch, widths[-1])."""
        halvings = self.patch.bit_length() - 1
        for i, width in enumerate(self.widths, 1):
            stride = 2 if i > len(self.widths) - halvings else 1
            act = self.activation if i < len(self.widths) else None
            x = ConvNorm(width, 3, act, self.dtype, stride, name=f"conv{i}")(x, bn)
        waves = jnp.asarray(positions(*x.shape[1:3]), self.dtype)
        return x + Conv(x.shape[-1], 1, use_bias=True, dtype=self.dtype, name="positions")(waves)


def positions(height: int, width: int) -> np.ndarray:
    """Sines and cosines of the row and of the column of each token: (1, height, width, 2 SINES)."""

    def waves(count):
        angle = 2 * np.pi * np.arange(1, count + 1) / (count + EPSILON)
        angles = angle[:, None] / 10_000 ** (2 * np.arange(SINES // 2) / SINES)
        return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(count, SINES)

    rows = np.broadcast_to(waves(height)[:, None], (height, width, SINES))
    columns = np.broadcast_to(waves(width)[None], (height, width, SINES))
    return np.concatenate([rows, columns], -1)[None]


class CrossCovariance(nn.Module):
    """Attention of channels to channels, by the cosines between them over all tokens."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, D) -> the same shape."""
        batch, height, width, dim = x.shape
        qkv = nn.Dense(3 * dim, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(batch, height * width, 3, self.heads, dim // self.heads)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        q, k = (a / jnp.maximum(jnp.linalg.norm(a, axis=1, keepdims=True), 1e-12) for a in (q, k))
        shape = (self.heads, 1, 1)
        temperature = self.param("temperature", nn.initializers.ones, shape, jnp.float32)
        cosines = jnp.einsum("bnhc,bnhd->bhcd", q, k).astype(jnp.float32)
        weights = nn.softmax(cosines * temperature.reshape(1, *shape)).astype(self.dtype)
        y = jnp.einsum("bhcd,bnhd->bnhc", weights, v)
        return nn.Dense(dim, dtype=self.dtype, name="out")(y.reshape(x.shape))


class ClassAttention(nn.Module):
    """Attention of the first token to all tokens."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, N, D) -> (B, 1, D)."""
        batch, _, dim = x.shape
        linear = partial(nn.Dense, dim, dtype=self.dtype)
        q, k, v = (linear(name=name)(a) for name, a in (("q", x[:, :1]), ("k", x), ("v", x)))
        q, k, v = (a.reshape(batch, -1, self.heads, dim // self.heads) for a in (q, k, v))
        y = nn.dot_product_attention(q, k, v, force_fp32_for_softmax=True)
        return linear(name="out")(y.reshape(batch, 1, dim))


class LocalMixing(nn.Module):
    """conv3x3 of each channel, act, BN, conv3x3 of each channel."""

    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, D) -> the same shape."""
        dim = x.shape[-1]
        conv = partial(Conv, dim, 3, use_bias=True, dtype=self.dtype, groups=dim)
        y = activation(self.activation)(conv(name="conv1")(x))
        return conv(name="conv2")(BatchNorm(self.dtype, name="norm")(y, bn))


class XCiTBlock(nn.Module):
    """x + attention(norm(x)), x + mixing(norm(x)), x + mlp(norm(x)), each term scaled."""

    heads: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, D) -> the same shape."""
        norm, scale = partial(nn.LayerNorm, EPSILON, dtype=self.dtype), partial(_scaled, self)
        attention = CrossCovariance(self.heads, self.dtype, name="attention")
        x = x + scale("gamma1", attention(norm(name="norm1")(x)))
        mixing = LocalMixing(self.activation, self.dtype, name="mixing")
        x = x + scale("gamma2", mixing(norm(name="norm2")(x), bn))
        return x + scale("gamma3", _mlp(self, norm(name="norm3")(x)))


class ClassBlock(nn.Module):
    """The class token attends to all tokens, then an mlp changes it alone.

    The other tokens are added to their own norm, as in the authors' code. With `tokens_norm` the
    norm before the mlp changes them too.
    """

    heads: int
    activation: str
    dtype: Any
    tokens_norm: bool

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, N, D) -> the same shape."""
        del bn  # it has no BN
        norm, scale = partial(nn.LayerNorm, EPSILON, dtype=self.dtype), partial(_scaled, self)
        y = norm(name="norm1")(x)
        first = ClassAttention(self.heads, self.dtype, name="attention")(y)
        x = x + scale("gamma1", jnp.concatenate([first, y[:, 1:]], 1))
        if self.tokens_norm:
            x = norm(name="norm2")(x)
        else:
            x = jnp.concatenate([norm(name="norm2")(x[:, :1]), x[:, 1:]], 1)
        first = scale("gamma2", _mlp(self, x[:, :1]))
        return x + jnp.concatenate([first, x[:, 1:]], 1)


def _scaled(module: nn.Module, name: str, y: jax.Array) -> jax.Array:
    gamma = module.param(name, nn.initializers.ones, (y.shape[-1],), jnp.float32)
    return y * gamma.astype(y.dtype).reshape(*[1] * (y.ndim - 1), -1)


def _mlp(block: XCiTBlock | ClassBlock, x: jax.Array) -> jax.Array:
    hidden = nn.Dense(4 * x.shape[-1], dtype=block.dtype, name="mlp1")(x)
    hidden = activation(block.activation)(hidden)
    return nn.Dense(x.shape[-1], dtype=block.dtype, name="mlp2")(hidden)


class XCiTBody(nn.Module):
    """Embed patches, run the blocks, prepend a class token for the last ones, normalise it.

    Args:
      embedding: images -> tokens (B, H, W, D), see `PatchEmbedding`; the stem is `Pixels`.
      blocks: of all tokens.
      class_blocks: of the tokens with the class token before them.
    """

    embedding: nn.Module
    blocks: Stage
    class_blocks: Stage
    dtype: Any
    remat: bool = False

    @nn.compact
    def __call__(self, h: jax.Array, bn: BN) -> jax.Array:
        """Images (B, H, W, C) -> float32 features (B, D)."""
        h = run_blocks(self, [self.blocks], self.embedding(h, bn), bn)
        batch, *_, dim = h.shape
        first = self.param("class_token", nn.initializers.normal(0.02), (1, 1, dim), jnp.float32)
        first = jnp.broadcast_to(first.astype(self.dtype), (batch, 1, dim))
        h = jnp.concatenate([first, h.reshape(batch, -1, dim)], 1)
        h = run_blocks(self, [self.class_blocks], h, bn, first=2)
        h = nn.LayerNorm(EPSILON, dtype=self.dtype, name="norm")(h)[:, 0]
        return h.astype(jnp.float32)
