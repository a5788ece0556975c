"""Residual blocks, before and after activation, and the body that stacks them in stages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.models.layers import BN, BatchNorm, Conv, activation


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

    pre_activation: ClassVar[bool] = False

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
        act = activation(self.activation)
        conv = partial(Conv, self.features, 3, dtype=self.dtype, kernel_init=self.kernel_init)
        y = conv(self.stride, name="conv1")(x)
        y = act(BatchNorm(self.dtype, name="norm1")(y, bn))
        y = conv(name="conv2")(y)
        y = BatchNorm(self.dtype, name="norm2")(y, bn)
        extra = self.features - x.shape[-1]
        if self.projected and (self.stride != 1 or extra):
            shortcut = Conv(
                self.features, 1, self.stride, False, self.dtype, self.kernel_init, name="shortcut"
            )
            x = BatchNorm(self.dtype, name="shortcut_norm")(shortcut(x), bn)
        else:
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))
        return act(x + y)


class ProjectedBlock(BasicBlock):
    """BasicBlock with option B, as in ResNet-18."""

    projected: bool = True


class PreActBlock(nn.Module):
    """BN-act-conv-BN-act-conv, plus the input.

    He et al. (2016), "Identity mappings"; Zagoruyko and Komodakis (2016). Where the shape changes
    the shortcut projects the input after BN-act, or with `raw_shortcut` the input itself.
    """

    features: int
    stride: int
    activation: str
    kernel_init: Callable
    dtype: Any
    raw_shortcut: bool = False

    pre_activation: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
        act = activation(self.activation)
        conv = partial(Conv, self.features, dtype=self.dtype, kernel_init=self.kernel_init)
        h = act(BatchNorm(self.dtype, name="norm1")(x, bn))
        if self.stride != 1 or x.shape[-1] != self.features:
            x = conv(1, self.stride, name="shortcut")(x if self.raw_shortcut else h)
        h = conv(3, self.stride, name="conv1")(h)
        h = act(BatchNorm(self.dtype, name="norm2")(h, bn))
        return x + conv(3, name="conv2")(h)


class RawShortcutBlock(PreActBlock):
    """PreActBlock whose projections see the input itself, as in some published networks."""

    raw_shortcut: bool = True


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
    """

    block: type[nn.Module]
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    activation: str
    kernel_init: Callable
    dtype: Any = jnp.float32
    remat: bool = False
    final_norm: bool = True

    @nn.compact
    def __call__(self, h: jax.Array, bn: BN) -> jax.Array:
        """Stem output -> float32 features (B, widths[-1])."""
        block = nn.remat(self.block, static_argnums=(2,)) if self.remat else self.block
        act, norm = activation(self.activation), BatchNorm(self.dtype, name="norm")
        if not self.block.pre_activation:
            h = act(norm(h, bn))
        for stage, (features, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                name = f"stage{stage + 1}_block{i + 1}"  # named, so that remat keeps the names
                h = block(
                    features, stride, self.activation, self.kernel_init, self.dtype, name=name
                )(h, bn)
        if self.block.pre_activation and self.final_norm:
            h = act(norm(h, bn))
        return jnp.mean(h.astype(jnp.float32), (1, 2))
