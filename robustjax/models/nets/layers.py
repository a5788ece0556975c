"""The three layers every architecture is made of: convolution, batch normalisation, activation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from robustjax.convolutions.conv2d import conv2d, grouped_conv2d, padded_conv2d

MODES = ("running", "batch", "commit", "capture")
MOMENTUM = 0.9

torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default for convolutions and linear layers: uniform in +-1 / sqrt(fan_in)."""

unit_uniform = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
"""TensorFlow 1's uniform unit scaling: uniform in +-sqrt(3 / fan_in)."""

he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Normal with standard deviation sqrt(2 / (k k D)), as in He et al. (2015) and wide ResNets."""


class BN(NamedTuple):
    """The statistics that batch normalisation reads and writes in one forward pass.

    Args:
      mode: 'running' normalises with the running statistics and keeps them. The other modes
        normalise with the batch's: 'batch' keeps the running statistics, 'commit' moves them by
        1 - 0.9 towards the batch's, and 'capture' replaces them (for a later 'running' pass with
        these statistics; gradients flow).
      axes: mapped axes that the batch is spread over, for instance ('example', 'batch').

    Guarantees:
      'running' and 'batch' leave the statistics bit-identical.
      If `axes` names all of them, a gradient under vmap is that of the loss summed over the batch.

    >>> rj.models.BN("batch", axes=("example",))
    BN(mode='batch', axes=('example',))
    """

    mode: str = "running"
    axes: tuple[str, ...] = ()


class Conv(nn.Module):
    """`conv2d` with its kernel: (B, H, W, C) -> (B, ceil(H / stride), ceil(W / stride), D).

    With `groups` the channels are split into that many parts, each with its own kernels. `padding`
    is the number of zeros around the image, or (before, after); None: half of the kernel's size.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable = torch_uniform
    groups: int = 1
    padding: int | tuple[int, int] | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve in `dtype`; the parameters are float32."""
        side, channels = self.kernel_size, max(1, x.shape[-1] // self.groups)
        shape = (side, side, channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.padding is not None:
            padding = self.padding
            padding = (padding, padding) if isinstance(padding, int) else padding
            x = padded_conv2d(x, kernel, self.stride, self.groups, padding)
        elif self.groups == 1:
            x = conv2d(x, kernel, self.stride)
        else:
            x = grouped_conv2d(x, kernel, self.stride, self.groups)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return x


class BatchNorm(nn.Module):
    """Batch normalisation whose mode is an argument; statistics are float32 with any `dtype`.

    It commits the biased variance, by which it also normalises, as Flax and TensorFlow do. PyTorch
    commits n / (n - 1) times that, for n values of a channel in the batch.
    """

    dtype: Any = jnp.float32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """Normalise (B, H, W, C) over all but the channels and over `bn.axes`."""
        if bn.mode not in MODES:
            raise ValueError(f"unknown BN mode {bn.mode!r}; choose one of {', '.join(MODES)}")
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)

        # Flax's own module always commits batch statistics; run it apart, and commit as `bn` says
        axes: Any = bn.axes or None  # Flax's type has one axis; it passes any number on to JAX
        norm = nn.BatchNorm(
            use_running_average=bn.mode == "running",
            momentum=0.0 if bn.mode == "capture" else MOMENTUM,
            epsilon=self.epsilon,
            dtype=self.dtype,
            axis_name=axes,
            parent=None,
        )
        variables = {
            "params": {"scale": scale, "bias": bias},
            "batch_stats": {"mean": mean.value, "var": var.value},
        }
        y, new = norm.apply(variables, x, mutable=["batch_stats"])
        moved: Any = new["batch_stats"]
        if bn.mode in ("commit", "capture") and not self.is_initializing():
            mean.value, var.value = moved["mean"], moved["var"]
        return y


class AdaptiveNorm(nn.Module):
    """Batch normalisation whose scale and shift depend on the example: BN(x) (1 + s(x)) + t(x).

    s and t (C,) come from the spatial mean of x by two layers with max(8, C / 16) hidden units. The
    second layer starts at 0, so that a new network equals one without. The code of Xu et al. (2020)
    is not public: this is our reading of their abstract.

    Guarantees:
      With new parameters it equals `BatchNorm`.
    """

    dtype: Any = jnp.float32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, bn: BN) -> jax.Array:
        """Normalise (B, H, W, C)."""
        channels = x.shape[-1]
        dense = partial(Conv, kernel_size=1, use_bias=True)
        pooled = jnp.mean(x.astype(jnp.float32), (1, 2), keepdims=True)
        hidden = nn.relu(dense(max(8, channels // 16), name="hidden")(pooled))
        last = dense(2 * channels, kernel_init=nn.initializers.zeros, name="last")(hidden)
        scale, shift = jnp.split(last.astype(self.dtype), 2, axis=-1)
        return BatchNorm(self.dtype, self.epsilon, name="norm")(x, bn) * (1 + scale) + shift


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "softplus": nn.softplus,
    "gelu": partial(nn.gelu, approximate=False),
    "elu": nn.elu,
    "leaky_relu": partial(nn.leaky_relu, negative_slope=0.1),
    "selu": nn.selu,
    "celu": partial(nn.celu, alpha=1.2),
    "tanh": nn.tanh,
    "silu": nn.silu,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """Look up an activation by name; 'softplus:beta' is log(1 + exp(beta x)) / beta.

    Raises:
      ValueError: `name` is unknown or its beta is not a positive number.
    """
    if name.startswith("softplus:"):
        try:
            beta = float(name.removeprefix("softplus:"))
        except ValueError:
            beta = 0.0
        if not beta > 0:
            raise ValueError(f"{name!r}: the beta of softplus must be a positive number")
        return lambda x: nn.softplus(beta * x) / beta
    if name not in ACTIVATIONS:
        known = ", ".join([*ACTIVATIONS, "softplus:BETA"])
        raise ValueError(f"unknown activation {name!r}; choose one of {known}")
    return ACTIVATIONS[name]
