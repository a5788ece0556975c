"""Heads: features (B, D) -> logits (B, K). Any Flax module of this shape is one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.layers import torch_uniform


class Linear(nn.Module):
    """The softmax classifier's last layer, in full float32 precision at any compute dtype.

    On GPUs and TPUs a float32 product is otherwise rounded to about 10 bits, which moves margins.
    """

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, D) -> float32 logits (B, K)."""
        kernel = self.param(
            "kernel", torch_uniform, (features.shape[-1], self.num_classes), jnp.float32
        )
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,), jnp.float32)
        logits = jnp.dot(features, kernel, precision=jax.lax.Precision.HIGHEST)
        return logits + bias.reshape(1, -1)
