"""A convolution whose gradients stay fast inside loops on the CPU, and plain everywhere else.

XLA:CPU gives a convolution the layout of its fast kernel only in the entry computation, and JAX's
transpose rules emit permuted convolutions. So inside a loop, where attacks live, an input gradient
is 5 to 10 times slower than the forward pass. Here both gradients are written as ordinary forward
convolutions. The choice is made when the program is lowered: a program for a GPU or a TPU contains
only the plain forms, whichever machine lowers it. Grouped convolutions are plain everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

NHWC = ("NHWC", "HWIO", "NHWC")
VECTOR = 32  # with fewer output channels XLA:CPU's kernel is slow (measured with AVX-512)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d(x: jax.Array, w: jax.Array, stride: int = 1) -> jax.Array:
    """Cross-correlate with k // 2 zeros on every side, as PyTorch's Conv2d(padding=k // 2) does.

    Args:
      x: (B, H, W, C).
      w: (k, k, C, D), k odd, of the dtype of `x`.
      stride: both strides.

    Returns:
      (B, ceil(H / stride), ceil(W / stride), D).

    Supports reverse mode of any order, but no `jax.jvp`, because it is a `custom_vjp`.

    Guarantees:
      Values and first and second derivatives equal those of `lax.conv_general_dilated`.
      Lowered for any platform but the CPU, it is `lax.conv_general_dilated` and its transposes.

    >>> rj.models.conv2d(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 16)), stride=2).shape
    (1, 4, 4, 16)
    """
    return lax.platform_dependent(
        x, w, cpu=partial(_forward, stride=stride), default=partial(_plain, stride=stride)
    )


def _conv2d_fwd(x, w, stride):
    return conv2d(x, w, stride), (x, w)


def _conv2d_bwd(stride, residuals, g):
    x, w = residuals

    def plain_dx(w, g):
        return jax.linear_transpose(lambda x: _plain(x, w, stride), x)(g)[0]

    def plain_dw(x, g):
        return jax.linear_transpose(lambda w: _plain(x, w, stride), w)(g)[0]

    if stride > 2 or x.shape[1] % stride or x.shape[2] % stride:  # the phases would differ in size
        return plain_dx(w, g), plain_dw(x, g)
    dx = lax.platform_dependent(w, g, cpu=partial(_dx, stride=stride), default=plain_dx)
    dw = lax.platform_dependent(x, g, cpu=partial(_dw, stride=stride, k=len(w)), default=plain_dw)
    return dx, dw


conv2d.defvjp(_conv2d_fwd, _conv2d_bwd)


def grouped_conv2d(x: jax.Array, w: jax.Array, stride: int, groups: int) -> jax.Array:
    """Convolve each of `groups` parts of the channels separately; plain on every platform.

    Args:
      x: (B, H, W, C).
      w: (k, k, C / groups, D), k odd; the first D / groups outputs see the first part.
      stride: both strides.
      groups: divides C and D.

    Returns:
      (B, ceil(H / stride), ceil(W / stride), D).

    Raises:
      ValueError: C or D is not a multiple of `groups`.
    """
    if x.shape[-1] % groups or w.shape[-1] % groups:
        raise ValueError(
            f"with {groups} groups the channels must be multiples of {groups}, not {x.shape[-1]} "
            f"in and {w.shape[-1]} out; choose another width"
        )
    return _plain(x, w, stride, groups)


def padded_conv2d(
    x: jax.Array, w: jax.Array, stride: int, groups: int, padding: tuple[int, int]
) -> jax.Array:
    """Convolve with any number of zeros (before, after) the rows and the columns.

    Args:
      x: (B, H, W, C).
      w: (k, k, C / groups, D).
      stride: both strides.
      groups: divides C and D.
      padding: (k // 2, k // 2) is that of `conv2d`; (0, 1) that of a 3x3 convolution with stride 2
        in TensorFlow, on images of even sides.

    Returns:
      (B, (H + before + after - k) // stride + 1, ..., D).

    Guarantees:
      With an odd k and one group, the cases of stride 1 with up to k // 2 zeros, and of (0, 1),
      have the fast gradients of `conv2d`.
    """
    if groups > 1 or not has_fast_gradients(x.shape, w.shape, stride, padding):
        return _plain(x, w, stride, groups, padding)
    half = len(w) // 2
    if padding == (half, half):
        return conv2d(x, w, stride)
    if stride == 1:
        rows, columns = (slice(half - padding[0], n - half + padding[1]) for n in x.shape[1:3])
        whole: Any = conv2d(x, w, 1)
        return whole[:, rows, columns]
    turned: Any = conv2d(x[:, ::-1, ::-1], w[::-1, ::-1], 2)  # the zeros come before it
    return turned[:, ::-1, ::-1]


def has_fast_gradients(
    image: Sequence[int], kernel: Sequence[int], stride: int, padding: tuple[int, int]
) -> bool:
    """Whether `padded_conv2d`, without groups, has gradients that are fast in a loop.

    Args:
      image: (B, H, W, C).
      kernel: (k, k, C, D).
      stride: both strides.
      padding: zeros before and after the rows and the columns.
    """
    (rows, columns), half = kernel[:2], kernel[0] // 2
    if rows != columns or rows % 2 == 0:
        return False
    if stride == 1:
        return max(padding) <= half
    even = not any(side % 2 for side in image[1:3])
    return stride == 2 and even and (padding == (half, half) or (rows, padding) == (3, (0, 1)))


def _plain(x, w, stride, groups=1, padding=None):
    padding = padding or (w.shape[0] // 2, w.shape[0] // 2)
    return lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        (padding, padding),
        dimension_numbers=NHWC,
        feature_group_count=groups,
    )


def _forward(x, w, stride):
    p = w.shape[0] // 2
    return _correlate(x, w, ((p, p), (p, p))) if stride == 1 else _plain(x, w, stride)


def _correlate(x, w, padding):
    """Stride 1; several columns of a narrow output are computed at once, as more channels."""
    _, cols, _, features = w.shape
    width = x.shape[2] + sum(padding[1]) - cols + 1
    n = 1
    while 2 * n * features <= VECTOR and n < 4 and width % (2 * n) == 0:
        n *= 2
    if n > 1:
        shifted = [jnp.pad(w, ((0, 0), (i, n - 1 - i), (0, 0), (0, 0))) for i in range(n)]
        w = jnp.concatenate(shifted, -1)
    y = lax.conv_general_dilated(x, w, (1, n), padding, dimension_numbers=NHWC)
    return y.reshape(*y.shape[:2], width, features)


def _dx(w, g, stride):
    """One convolution for each phase (a, b) of dx modulo the stride, with every stride-th tap."""
    k, _, channels, _ = w.shape
    taps, (batch, height, width, _) = jnp.swapaxes(w, 2, 3), g.shape

    def phase(a, b):
        first = [(c + k // 2) % stride for c in (a, b)]
        kernel = taps[first[0] :: stride, first[1] :: stride][::-1, ::-1]
        if 0 in kernel.shape:
            return jnp.zeros((batch, height, width, channels), g.dtype)
        high = [(c + k // 2) // stride for c in (a, b)]
        padding = [(n - 1 - h, h) for n, h in zip(kernel.shape[:2], high, strict=True)]
        return _correlate(g, kernel, padding)

    rows = [jnp.stack([phase(a, b) for b in range(stride)], 3) for a in range(stride)]
    return jnp.stack(rows, 2).reshape(batch, height * stride, width * stride, channels)


def _dw(x, g, stride, k):
    """A convolution with channels as the batch, the batch as channels and g as (dilated) kernel."""
    if k == 1:
        x, stride = x[:, ::stride, ::stride], 1
    p = k // 2
    dw = lax.conv_general_dilated(
        jnp.transpose(x, (3, 1, 2, 0)),
        jnp.transpose(g, (1, 2, 0, 3)),
        (1, 1),
        ((p, p - stride + 1), (p, p - stride + 1)),
        rhs_dilation=(stride, stride),
        dimension_numbers=NHWC,
    )
    return jnp.transpose(dw, (1, 2, 0, 3))
