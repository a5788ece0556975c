"""The network of "Fast is better than free" (Wong et al., ICLR 2020) on MNIST.

For `--model mnist_nets:Fast`. Its weights start as PyTorch's do, its biases from 0.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax

uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
Conv = functools.partial(nn.Conv, kernel_init=uniform)
Dense = functools.partial(nn.Dense, kernel_init=uniform)


class Fast(nn.Module):
    """conv 16, conv 32 (4 x 4, stride 2), 100 hidden units."""

    num_classes: int = 10
    width: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images (B, 28, 28, 1) in [0, 1] -> logits (B, 10)."""
        for channels in (self.width, 2 * self.width):
            x = nn.relu(Conv(channels, (4, 4), 2, padding=1)(x))
        x = nn.relu(Dense(100)(x.reshape(len(x), -1)))
        return Dense(self.num_classes)(x)
