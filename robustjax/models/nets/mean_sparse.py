"""MeanSparse: Amini et al. (2024), features near their mean are set to it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from typing_extensions import override

from robustjax.models.nets.layers import BN, BatchNorm
from robustjax.models.nets.same_padding import GatedSamePaddedBlock, SamePaddedBlock


class MeanSparse(nn.Module):
    """Replace values within `threshold` standard deviations of their channel's mean by the mean.

    The statistics and the threshold are set once, from a network that was trained without: they are
    variables of the collection 'batch_stats', which no mode of batch normalisation changes here.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> the same shape."""
        shape = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32).value
        var = self.variable("batch_stats", "var", jnp.zeros, shape, jnp.float32).value
        threshold = self.variable("batch_stats", "threshold", jnp.zeros, (), jnp.float32).value
        mean = jnp.broadcast_to(mean.astype(x.dtype), x.shape)
        width = (threshold * jnp.sqrt(var)).astype(x.dtype).reshape(1, 1, 1, -1)
        return jnp.where(jnp.abs(x - mean) < width, mean, x)


class SparseNorm(nn.Module):
    """Batch normalisation, then MeanSparse."""

    dtype: Any = jnp.float32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """Normalise (B, H, W, C)."""
        y = BatchNorm(self.dtype, self.epsilon, name="norm")(x, bn)
        return MeanSparse(name="sparse")(y)


class SparseBlock(SamePaddedBlock):
    """SamePaddedBlock with MeanSparse after each BN, by its `norm`, and after the addition."""

    norm: Any = SparseNorm

    @nn.compact
    @override
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        return MeanSparse(name="sparse")(super().__call__(x, bn))


class GatedSparseBlock(GatedSamePaddedBlock):
    """The same with a gate."""

    norm: Any = SparseNorm

    @nn.compact
    @override
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        return MeanSparse(name="sparse")(super().__call__(x, bn))
