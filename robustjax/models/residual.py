"""Residual blocks, before and after activation, and the body that stacks them in stages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.layers import BN, AdaptiveNorm, BatchNorm, Conv, activation

Norm = type[BatchNorm] | type[AdaptiveNorm]


class BasicBlock(nn.Module):
    """conv-BN-act-conv-BN, plus the input, act.

    He et al. (2016), "Deep residual learning". Where the shape changes the shortcut is option A,
    which subsamples and adds zero channels, or with `projected` option B, a convolution and BN.
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

    He et al. (2016), "Identity mappings"; Zagoruyko and Komodakis (2016). Where the shape changes
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

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
        act = activation(self.activation)
        conv = partial(Conv, self.features, 3, dtype=self.dtype, kernel_init=self.kernel_init)
        norm = partial(self.norm, self.dtype, self.epsilon)
        h = act(norm(name="norm1")(x, bn))
        x = self.shortcut(x, h)
        h = conv(self.stride, name="conv1")(h)
        h = act(norm(name="norm2")(h, bn))
        return x + conv(name="conv2")(h)

    def shortcut(self, x: jax.Array, h: jax.Array) -> jax.Array:
        """The input x, and what it is after BN-act -> what the convolutions' output joins."""
        if self.stride == 1 and x.shape[-1] == self.features:
            return x
        return Conv(
            self.features, 1, self.stride, False, self.dtype, self.kernel_init, name="shortcut"
        )(h)


class RawShortcutBlock(PreActBlock):
    """PreActBlock whose projections see the input itself, as in some published networks."""

    def shortcut(self, x: jax.Array, h: jax.Array) -> jax.Array:
        """x or its projection."""
        return super().shortcut(x, x)


class PooledShortcutBlock(PreActBlock):
    """PreActBlock whose shortcut averages the pixels and adds zero channels: no parameters."""

    epsilon: ClassVar[float] = 1e-3

    def shortcut(self, x: jax.Array, h: jax.Array) -> jax.Array:
        """x, averaged over squares of stride x stride pixels."""
        if self.stride != 1:
            square = (self.stride, self.stride)
            x = nn.avg_pool(x, square, square, padding="SAME", count_include_pad=False)
        return widen(x, self.features)


class ActivatedBlock(PooledShortcutBlock):
    """PooledShortcutBlock that activates before it branches: the shortcut, too, sees BN-act."""

    def shortcut(self, x: jax.Array, h: jax.Array) -> jax.Array:
        """h, averaged."""
        return super().shortcut(h, h)


def widen(x: jax.Array, features: int) -> jax.Array:
    """Zero channels on both sides: (B, H, W, C) -> (B, H, W, features)."""
    extra = features - x.shape[-1]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))


class Residual(nn.Module):
    """Stages of blocks, each stage but the first halving the image, then the spatial mean.

    Args:
      block: BasicBlock (a BN-act comes before the first) or PreActBlock (it comes after the last),
        or one of their variants.
      widths: features of each stage.
      blocks: number of blocks in each stage.
      activation: a name known to `layers.activation`.
      kernel_init: initialiser of every convolution.
      dtype: compute dtype.
      remat: recompute each block in the backward pass instead of keeping its insides.
      final_norm: False leaves out the BN-act after the last PreActBlock, as some networks do.
      first: the variant that the very first block is; None: it is like the others.
      norm: BatchNorm or AdaptiveNorm, everywhere.
    """

    block: type[nn.Module]
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    activation: str
    kernel_init: Callable
    dtype: Any = jnp.float32
    remat: bool = False
    final_norm: bool = True
    first: type[nn.Module] | None = None
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, h: jax.Array, bn: BN) -> jax.Array:
        """Stem output -> float32 features (B, widths[-1])."""
        act = activation(self.activation)
        norm = self.norm(self.dtype, self.block.epsilon, name="norm")
        if not self.block.pre_activation:
            h = act(norm(h, bn))
        for stage, (features, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                block = self.first if self.first and stage == i == 0 else self.block
                block = nn.remat(block, static_argnums=(2,)) if self.remat else block
                name = f"stage{stage + 1}_block{i + 1}"  # named, so that remat keeps the names
                options = {"dtype": self.dtype, "norm": self.norm, "name": name}
                h = block(features, stride, self.activation, self.kernel_init, **options)(h, bn)
        if self.block.pre_activation and self.final_norm:
            h = act(norm(h, bn))
        return jnp.mean(h.astype(jnp.float32), (1, 2))
