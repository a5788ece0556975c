"""The network of "Fast is better than free" (Wong et al., ICLR 2020) on MNIST.

For `--model mnist_nets:Fast`. Weights and biases start as PyTorch's do.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax


def initial(fan_in: int) -> dict[str, Any]:
    """Uniform kernels and biases, in PyTorch's default range."""
    most = 1 / math.sqrt(fan_in)

    def draw(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -most, most)

    return {"kernel_init": draw, "bias_init": draw}


class Fast(nn.Module):
    """conv 16, conv 32 (4 x 4, stride 2), 100 hidden units."""

    num_classes: int = 10
    width: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images (B, 28, 28, 1) in [0, 1] -> logits (B, 10)."""
        for channels in (self.width, 2 * self.width):
            start = initial(4 * 4 * x.shape[-1])
            x = nn.relu(nn.Conv(channels, (4, 4), 2, padding=1, **start)(x))
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(100, **initial(x.shape[-1]))(x))
        return nn.Dense(self.num_classes, **initial(100))(x)
