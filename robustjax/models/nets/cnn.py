"""A small network without batch normalisation, for digits and MNIST."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.nets.layers import BN, Conv, activation, torch_uniform


class CNNBody(nn.Module):
    """act, a second 5x5 convolution of stride 2, act, a hidden layer, act."""

    width: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, h: jax.Array, bn: BN) -> jax.Array:
        """Stem output -> float32 features (B, 16 width)."""
        del bn  # nothing to normalise
        act = activation(self.activation)
        h = act(h)
        h = act(Conv(2 * self.width, 5, 2, use_bias=True, dtype=self.dtype, name="conv")(h))
        h = h.reshape(len(h), -1)
        kernel = self.param("kernel", torch_uniform, (h.shape[-1], 16 * self.width), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (16 * self.width,), jnp.float32)
        h = h @ kernel.astype(self.dtype) + bias.astype(self.dtype).reshape(1, -1)
        return act(h.astype(jnp.float32))


def cnn(width: int, activation: str, dtype: Any, remat: bool) -> tuple[nn.Module, nn.Module]:
    """Two 5x5 convolutions of stride 2 (width, 2 width) and a hidden layer (16 width).

    The network of Madry et al. (2018) for MNIST with strides instead of poolings, which makes it
    four times cheaper. Too small for `remat` to matter.

    Returns:
      (stem, body).
    """
    del remat
    stem = Conv(width, 5, 2, use_bias=True, dtype=dtype)
    return stem, CNNBody(width, activation, dtype)
