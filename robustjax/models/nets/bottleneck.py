"""The bottleneck block with grouped convolutions: for ResNeXt, RegNet and dual path networks."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from flax import linen as nn

from robustjax.models.nets.blocks import ConvNorm, Gate
from robustjax.models.nets.layers import BN, activation


class Bottleneck(nn.Module):
    """conv1x1-BN-act-conv3x3-BN-act-conv1x1-BN, plus the input (projected where the shape changes).

    He et al. (2016), "Deep residual learning", with groups as in Xie et al. (2017). The 3x3
    convolution has `inner` channels and, if `gated`, a Gate after it.
    """

    features: int
    inner: int
    stride: int
    groups: int
    activation: str
    dtype: Any
    gated: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
        act = partial(ConvNorm, activation=self.activation, dtype=self.dtype)
        linear = partial(act, activation=None)
        y = act(self.inner, 1, name="conv1")(x, bn)
        y = act(self.inner, 3, stride=self.stride, groups=self.groups, name="conv2")(y, bn)
        if self.gated:
            y = Gate(max(1, round(x.shape[-1] / 4)), self.activation, self.dtype, name="gate")(y)
        y = linear(self.features, 1, name="conv3")(y, bn)
        if self.is_projected(x):
            x = linear(self.features, 1, stride=self.stride, name="shortcut")(x, bn)
        return activation(self.activation)(self.join(x, y))

    def is_projected(self, x: jax.Array) -> bool:
        """Whether the shortcut of x has a convolution."""
        return self.stride != 1 or x.shape[-1] != self.features

    def join(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Combine the outputs of the shortcut and of the convolutions, before act."""
        return x + y
