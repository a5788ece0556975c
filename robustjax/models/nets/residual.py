"""Residual blocks, with activation before or after them, and the body that stacks them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from typing_extensions import override

from robustjax.models.nets.blocks import Gate, run_blocks
from robustjax.models.nets.layers import BN, AdaptiveNorm, BatchNorm, Conv, activation

Norm = type[BatchNorm] | type[AdaptiveNorm]


class BasicBlock(nn.Module):
    """conv-BN-act-conv-BN, plus the input, act.

    He et al. (2016), "Deep residual learning". Where the shape changes, the shortcut is option A,
    which subsamples and adds zero channels, or if `projected` option B, a convolution and BN.
    """

    features: int
    stride: int
    activation: str
    kernel_init: Callable
    dtype: Any
    projected: bool = False
    norm: Norm = BatchNorm

    pre_activation: ClassVar[bool] = False
    epsilon: ClassVar[float] = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
        act = activation(self.activation)
        conv = partial(Conv, self.features, 3, dtype=self.dtype, kernel_init=self.kernel_init)
        norm = partial(self.norm, self.dtype, self.epsilon)
        y = conv(self.stride, name="conv1")(x)
        y = act(norm(name="norm1")(y, bn))
        y = conv(name="conv2")(y)
        y = norm(name="norm2")(y, bn)
        extra = self.features - x.shape[-1]
        if self.projected and (self.stride != 1 or extra):
            shortcut = Conv(
                self.features, 1, self.stride, False, self.dtype, self.kernel_init, name="shortcut"
            )
            x = norm(name="shortcut_norm")(shortcut(x), bn)
        else:
            x = widen(x[:, :: self.stride, :: self.stride], self.features)
        return act(x + y)


class ProjectedBlock(BasicBlock):
    """BasicBlock with option B, as in ResNet-18."""

    projected: bool = True


class PreActBlock(nn.Module):
    """BN-act-conv-BN-act-conv, plus the input.

    He et al. (2016), "Identity mappings"; Zagoruyko and Komodakis (2016). Where the shape changes,
    the shortcut projects the input after BN-act.
    """

    features: int
    stride: int
    activation: str
    kernel_init: Callable
    dtype: Any
    norm: Norm = BatchNorm

    pre_activation: ClassVar[bool] = True
    epsilon: ClassVar[float] = 1e-5
    padding: ClassVar[tuple[int, int] | None] = None
    """Of the convolutions with a stride."""

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
        act = activation(self.activation)
        conv = partial(Conv, self.features, 3, dtype=self.dtype, kernel_init=self.kernel_init)
        norm = partial(self.norm, self.dtype, self.epsilon)
        h = act(norm(name="norm1")(x, bn))
        x = self.shortcut(x, h, bn)
        padding = self.padding if self.stride > 1 else None
        h = conv(self.stride, padding=padding, name="conv1")(h)
        h = act(norm(name="norm2")(h, bn))
        return x + self.gate(conv(name="conv2")(h))

    def gate(self, y: jax.Array) -> jax.Array:
        """Transform the convolutions' output before it is added: here, the identity."""
        return y

    def shortcut(self, x: jax.Array, h: jax.Array, bn: BN) -> jax.Array:
        """The input x, and h = BN-act of it -> the term to add to the convolutions' output."""
        if self.stride == 1 and x.shape[-1] == self.features:
            return x
        return Conv(
            self.features, 1, self.stride, False, self.dtype, self.kernel_init, name="shortcut"
        )(h)


class RawShortcutBlock(PreActBlock):
    """PreActBlock whose projections see the input itself, as in some published networks."""

    @override
    def shortcut(self, x: jax.Array, h: jax.Array, bn: BN) -> jax.Array:
        return super().shortcut(x, x, bn)


class NormedShortcutBlock(PreActBlock):
    """PreActBlock with a BN after its projections: Diffenderfer et al. (2021)."""

    @override
    def shortcut(self, x: jax.Array, h: jax.Array, bn: BN) -> jax.Array:
        y = super().shortcut(x, h, bn)
        return x if y is x else self.norm(self.dtype, self.epsilon, name="shortcut_norm")(y, bn)


class PooledShortcutBlock(PreActBlock):
    """PreActBlock whose shortcut averages the pixels and adds zero channels: no parameters."""

    epsilon: ClassVar[float] = 1e-3

    @override
    def shortcut(self, x: jax.Array, h: jax.Array, bn: BN) -> jax.Array:
        if self.stride != 1:
            square = (self.stride, self.stride)
            x = nn.avg_pool(x, square, square, padding="SAME", count_include_pad=False)
        return widen(x, self.features)


class ActivatedBlock(PooledShortcutBlock):
    """PooledShortcutBlock that activates before it branches: the shortcut also sees BN-act."""

    @override
    def shortcut(self, x: jax.Array, h: jax.Array, bn: BN) -> jax.Array:
        return super().shortcut(h, h, bn)


class SqueezeBlock(PreActBlock):
    """PreActBlock that ends in a Gate of channels / 16.

    Its networks normalise after the stem instead of after the last block, as in pytorch-cifar.
    """

    pre_activation: ClassVar[bool] = False

    @nn.nowrap
    @override
    def gate(self, y: jax.Array) -> jax.Array:
        return Gate(max(1, self.features // 16), self.activation, self.dtype, name="gate")(y)


class PreActBottleneck(PreActBlock):
    """BN-act-conv1x1, BN-act-conv3x3, BN-act-conv1x1, plus the input.

    The 3x3 convolution has a quarter of the features.
    """

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
        act = activation(self.activation)
        conv = partial(Conv, dtype=self.dtype, kernel_init=self.kernel_init)
        norm, inner = partial(self.norm, self.dtype, self.epsilon), self.features // 4
        h = act(norm(name="norm1")(x, bn))
        x = self.shortcut(x, h, bn)
        h = conv(inner, 1, name="conv1")(h)
        h = act(norm(name="norm2")(h, bn))
        h = conv(inner, 3, self.stride, name="conv2")(h)
        h = act(norm(name="norm3")(h, bn))
        return x + conv(self.features, 1, name="conv3")(h)


class NormedShortcutBottleneck(NormedShortcutBlock, PreActBottleneck):
    """PreActBottleneck with a BN after its projections: Chen et al. (2020).

    Its networks normalise after the stem instead of after the last block.
    """

    pre_activation: ClassVar[bool] = False


def widen(x: jax.Array, features: int) -> jax.Array:
    """Add zero channels on both sides: (B, H, W, C) -> (B, H, W, features)."""
    extra = features - x.shape[-1]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))


Block = type[BasicBlock] | type[PreActBlock]


class Residual(nn.Module):
    """Stages of blocks, which halve the image except for the first, then the spatial mean.

    Args:
      block: BasicBlock or PreActBlock or one of their variants. A BN-act comes after the last block
        if its `pre_activation` is True, otherwise before the first.
      widths: features of each stage.
      blocks: number of blocks in each stage.
      activation: a name known to `layers.activation`.
      kernel_init: initialiser of every convolution.
      dtype: compute dtype.
      remat: recompute each block in the backward pass instead of storing its activations.
      final_norm: False omits the BN-act after the last PreActBlock, as some networks do.
      first: the variant for the very first block; None: as the others.
      norm: BatchNorm or AdaptiveNorm, everywhere.
    """

    block: Block
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    activation: str
    kernel_init: Callable
    dtype: Any = jnp.float32
    remat: bool = False
    final_norm: bool = True
    first: Block | None = None
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, h: jax.Array, bn: BN) -> jax.Array:
        """Stem output -> float32 features (B, widths[-1])."""
        act = activation(self.activation)
        norm = self.norm(self.dtype, self.block.epsilon, name="norm")
        if not self.block.pre_activation:
            h = act(norm(h, bn))
        stages, block = [], self.first or self.block
        for features, count in zip(self.widths, self.blocks, strict=True):
            stages.append([])
            for i in range(count):
                stride = 2 if len(stages) > 1 and i == 0 else 1
                options = features, stride, self.activation, self.kernel_init, self.dtype
                stages[-1].append(block(*options, norm=self.norm, parent=None))
                block = self.block
        h = run_blocks(self, stages, h, bn)
        if self.block.pre_activation and self.final_norm:
            h = act(norm(h, bn))
        return jnp.mean(h.astype(jnp.float32), (1, 2))
