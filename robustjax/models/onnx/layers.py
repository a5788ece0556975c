"""ONNX's layers, channels first: convolution, pooling, normalisation, products and attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from robustjax.models.onnx.arrays import TRAINING, Array, library


def _pads(
    image: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int] | None,
    auto_pad: str,
) -> list[tuple[int, int]]:
    """Of each axis of the image, before and after."""
    axes = len(kernel)
    if auto_pad in ("NOTSET", "VALID"):
        pads = pads if pads and auto_pad == "NOTSET" else [0] * (2 * axes)
        return list(zip(pads[:axes], pads[axes:], strict=True))
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad {auto_pad!r} is not known")
    found = []
    for size, k, stride, dilation in zip(image, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if auto_pad == "SAME_UPPER" else (more, less))
    return found


def _per_channel(values: Array, ndim: int) -> Array:
    return values.reshape(-1, *[1] * (ndim - 2))


def _conv(
    x,
    kernel,
    bias=None,
    *,
    auto_pad="NOTSET",
    dilations=None,
    group=1,
    pads=None,
    strides=None,
):
    ones = (1,) * (x.ndim - 2)
    strides, dilations = strides or ones, dilations or ones
    out = lax.conv_general_dilated(
        x,
        kernel,
        strides,
        _pads(x.shape[2:], kernel.shape[2:], strides, dilations, pads, auto_pad),
        rhs_dilation=dilations,
        feature_group_count=group,
    )
    return out if bias is None else out + _per_channel(bias, x.ndim)


def _conv_transpose(
    x,
    kernel,
    bias=None,
    *,
    auto_pad="NOTSET",
    dilations=None,
    group=1,
    output_padding=None,
    output_shape=None,
    pads=None,
    strides=None,
):
    if output_shape is not None or auto_pad not in ("NOTSET", "VALID"):
        raise ValueError("output_shape and auto_pad are not known: give pads")
    axes = x.ndim - 2
    strides, dilations = strides or (1,) * axes, dilations or (1,) * axes
    pads, more = pads or (0,) * (2 * axes), output_padding or (0,) * axes
    spans = [(k - 1) * d for k, d in zip(kernel.shape[2:], dilations, strict=True)]
    around = [(span - pads[i], span - pads[i + axes] + more[i]) for i, span in enumerate(spans)]
    inputs, outputs, *size = kernel.shape
    kernel = kernel.reshape(group, inputs // group, outputs, *size).swapaxes(1, 2)
    kernel = kernel.reshape(group * outputs, inputs // group, *size)
    out = lax.conv_general_dilated(
        x,
        jnp.flip(kernel, range(2, x.ndim)),
        (1,) * axes,
        around,
        lhs_dilation=strides,
        rhs_dilation=dilations,
        feature_group_count=group,
    )
    return out if bias is None else out + _per_channel(bias, x.ndim)


def _pool(x, start, combine, kernel_shape, strides, dilations, auto_pad, pads, ceil_mode):
    """The windows combined, and how many pixels of the image, of its padded image, each has."""
    ones = (1,) * len(kernel_shape)
    strides, dilations = strides or ones, dilations or ones
    image = x.shape[2:]
    around = _pads(image, kernel_shape, strides, dilations, pads, auto_pad)
    real, padded = np.ones(()), np.ones(())
    widths = [(0, 0), (0, 0)]
    for size, k, stride, dilation, (a, b) in zip(
        image, kernel_shape, strides, dilations, around, strict=True
    ):
        span = (k - 1) * dilation + 1
        count = (size + a + b - span) // stride + 1
        if ceil_mode and count * stride < size + a and (count - 1) * stride + span < size + a + b:
            count += 1  # a last window that begins in the image
        widths.append((a, (count - 1) * stride + span - size - a))
        taps = np.arange(count)[:, None] * stride + np.arange(k) * dilation
        real = real[..., None] * ((taps >= a) & (taps < a + size)).sum(1)
        padded = padded[..., None] * (taps < a + size + b).sum(1)
    if any(after < 0 for _, after in widths):  # pixels that no window sees
        x = x[tuple(slice(None, n + min(b, 0)) for n, (_, b) in zip(x.shape, widths, strict=True))]
        widths = [(a, max(b, 0)) for a, b in widths]
    window, steps, apart = ((1, 1, *given) for given in (kernel_shape, strides, dilations))
    out = lax.reduce_window(x, start, combine, window, steps, widths, window_dilation=apart)
    return out, real.astype(np.float32), padded.astype(np.float32)


def _max_pool(
    x, *, kernel_shape, strides=None, dilations=None, auto_pad="NOTSET", pads=None, ceil_mode=0
):
    how = (kernel_shape, strides, dilations, auto_pad, pads, ceil_mode)
    return _pool(x, -jnp.inf, lax.max, *how)[0]


def _average_pool(
    x,
    *,
    kernel_shape,
    strides=None,
    dilations=None,
    auto_pad="NOTSET",
    pads=None,
    ceil_mode=0,
    count_include_pad=0,
):
    how = (kernel_shape, strides, dilations, auto_pad, pads, ceil_mode)
    total, real, padded = _pool(x, 0.0, lax.add, *how)
    return total / (padded if count_include_pad else real).astype(x.dtype)


def _spatial(x: Array) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def _batch_norm(x, scale, bias, mean, var, *, epsilon=1e-5, training_mode=0):
    if training_mode:
        raise ValueError(TRAINING)
    factor = scale * lax.rsqrt(var + jnp.asarray(epsilon, var.dtype))
    ndim = max(x.ndim, 2)
    return (x - _per_channel(mean, ndim)) * _per_channel(factor, ndim) + _per_channel(bias, ndim)


def _standardised(x: Array, axes: Sequence[int], epsilon: float) -> Array:
    centred = x - x.mean(axes, keepdims=True)
    return centred * lax.rsqrt((centred * centred).mean(axes, keepdims=True) + epsilon)


def _instance_norm(x, scale, bias, *, epsilon=1e-5):
    x = _standardised(x, _spatial(x), epsilon)
    return x * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)


def _group_norm(x, scale, bias, *, num_groups, epsilon=1e-5, opset):
    grouped = x.reshape(len(x), num_groups, -1)
    out = _standardised(grouped, (2,), epsilon).reshape(x.shape)
    if opset < 21:  # a scale for each group
        scale, bias = (jnp.repeat(a, x.shape[1] // num_groups) for a in (scale, bias))
    return out * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)


def _layer_norm(x, scale, bias=None, *, axis=-1, epsilon=1e-5):
    out = _standardised(x, tuple(range(axis % x.ndim, x.ndim)), epsilon) * scale
    return out if bias is None else out + bias


def _rms_norm(x, scale, *, axis=-1, epsilon=1e-5):
    axes = tuple(range(axis % x.ndim, x.ndim))
    return x * lax.rsqrt((x * x).mean(axes, keepdims=True) + epsilon) * scale


def _mean_variance(x, *, axes=(0, 2, 3)):
    if 0 in axes:
        raise ValueError("it normalises over the images of a batch, which are not to depend")
    return _standardised(x, axes, 1e-9)


def _lp_norm(x, *, axis=-1, p=2):
    size = abs(x) if p == 1 else x * x
    total = size.sum(axis, keepdims=True)
    safe = jnp.where(total > 0, total, 1)
    return x / (safe if p == 1 else jnp.sqrt(safe))


def _local_response(x, *, size, alpha=1e-4, beta=0.75, bias=1.0):
    window, before = (1, size, *(1,) * (x.ndim - 2)), (size - 1) // 2
    around = [(0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2)]
    squares = lax.reduce_window(x * x, 0.0, lax.add, window, (1,) * x.ndim, around)
    return x / (bias + alpha / size * squares) ** beta


def _gemm(a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    out = (a.T if transA else a) @ (b.T if transB else b)
    out = out if alpha == 1 else alpha * out
    return out if c is None else out + (c if beta == 1 else beta * c)


def _attention(
    q,
    k,
    v,
    mask=None,
    *,
    is_causal=0,
    kv_num_heads=None,
    q_num_heads=None,
    scale=None,
    softcap=0.0,
):
    if softcap:
        raise ValueError("softcap is not known")
    flat = q.ndim == 3
    if flat:
        heads = (q_num_heads, kv_num_heads, kv_num_heads)
        q, k, v = (
            a.reshape(*a.shape[:2], n, -1).swapaxes(1, 2)
            for a, n in zip((q, k, v), heads, strict=True)
        )
    k, v = (jnp.repeat(a, q.shape[1] // a.shape[1], 1) for a in (k, v))
    scores = q @ k.swapaxes(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        seen = np.tril(np.ones(scores.shape[-2:], bool))
        scores = jnp.where(seen, scores, -jnp.inf)
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf) if mask.dtype == bool else scores + mask
    out = jax.nn.softmax(scores, axis=-1) @ v
    return out.swapaxes(1, 2).reshape(len(out), out.shape[2], -1) if flat else out


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda x: x.mean(_spatial(x), keepdims=True),
    "GlobalMaxPool": lambda x: x.max(_spatial(x), keepdims=True),
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "MeanVarianceNormalization": _mean_variance,
    "LpNormalization": _lp_norm,
    "LRN": _local_response,
    "Gemm": _gemm,
    "MatMul": lambda a, b: library(a, b).matmul(a, b),
    "Einsum": lambda *arrays, equation: jnp.einsum(equation, *arrays),
    "Attention": _attention,
}
