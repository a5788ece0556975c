"""Parts that most convolutional networks share: conv-BN-act, gates, poolings, bodies of stages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from robustjax.models.nets.layers import BN, BatchNorm, Conv, activation

Stage = tuple[nn.Module, ...]


class ConvNorm(nn.Module):
    """conv-BN-act, or conv-BN if `activation` is None.

    With as many `groups` as channels the convolution is depthwise.
    """

    features: int
    kernel_size: int
    activation: str | None
    dtype: Any
    stride: int = 1
    groups: int = 1
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), features)."""
        conv = partial(Conv, self.features, self.kernel_size, self.stride, self.use_bias)
        y = conv(dtype=self.dtype, groups=self.groups, name="conv")(x)
        y = BatchNorm(self.dtype, name="norm")(y, bn)
        return y if self.activation is None else activation(self.activation)(y)


class Gate(nn.Module):
    """Squeeze and excitation: scale the channels by sigmoid(W2 act(W1 m + b1) + b2).

    m are the channels' means over the pixels.

    References: Hu, Shen and Sun (2018), "Squeeze-and-excitation networks", eqs. 2 to 4.
    """

    hidden: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> the same shape."""
        linear = partial(Conv, kernel_size=1, use_bias=True, dtype=self.dtype)
        w = jnp.mean(x.astype(jnp.float32), (1, 2), keepdims=True)
        w = activation(self.activation)(linear(self.hidden, name="squeeze")(w))
        return x * nn.sigmoid(linear(x.shape[-1], name="excite")(w))


class MaxPool(nn.Module):
    """Max pooling with stride 2 that also pools the incomplete squares at the border.

    So every image size passes, even a single pixel. PyTorch's 2x2 pooling drops the last row of an
    image of odd height.
    """

    size: int = 2

    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C)."""
        del bn  # the signature of a block
        side = ((self.size - 1) // 2, self.size // 2)
        return nn.pool(x, -jnp.inf, lax.max, (self.size, self.size), (2, 2), (side, side))


def run_blocks(
    module: nn.Module,
    stages: Sequence[Sequence[nn.Module]],
    h: jax.Array,
    bn: BN,
    first: int = 1,
) -> jax.Array:
    """Call the blocks in order, as stage1_block1, ... of `module`, recomputed if it has `remat`.

    `first` is the number of the first of these stages. The blocks are templates: one that occurs
    twice becomes two blocks with parameters of their own.
    """

    def call(block, h):
        return block(h, bn)

    call = nn.remat(call) if module.remat else call
    for i, stage in enumerate(stages, first):
        for j, block in enumerate(stage, 1):
            h = call(block.clone(parent=module, name=f"stage{i}_block{j}"), h)
    return h


class Stages(nn.Module):
    """Blocks in stages, then the spatial mean.

    Args:
      stages: the blocks, modules (h, bn) -> h.
      activation: a name known to `layers.activation`.
      dtype: compute dtype.
      remat: recompute each block in the backward pass instead of storing its activations.
      pre_activation: put the BN-act outside the blocks after the last, not before the first.
      pool: a block between that BN-act and the first stage, such as `MaxPool`.
    """

    stages: tuple[Stage, ...]
    activation: str
    dtype: Any
    remat: bool = False
    pre_activation: bool = False
    pool: nn.Module | None = None

    @nn.compact
    def __call__(self, h: jax.Array, bn: BN) -> jax.Array:
        """Stem output -> float32 features (B, channels of the last block)."""

        def activated_norm(h):
            return activation(self.activation)(BatchNorm(self.dtype, name="norm")(h, bn))

        h = h if self.pre_activation else activated_norm(h)
        h = h if self.pool is None else self.pool(h, bn)
        h = run_blocks(self, self.stages, h, bn)
        h = activated_norm(h) if self.pre_activation else h
        return jnp.mean(h.astype(jnp.float32), (1, 2))
