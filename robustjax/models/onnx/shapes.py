"""ONNX's operators that move numbers: shapes, slices, copies, padding and resizing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.models.onnx.arrays import TRAINING, Array, Host, library

TYPES: dict[int, Any] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
    16: jnp.bfloat16,
}
"""By TensorProto.DataType."""

LARGEST = 1 << 27
"""Numbers of an array that a graph makes of itself."""


def _cast(x, *, to):
    if to not in TYPES:
        raise ValueError(f"there is no data type {to} here")
    return _as(x, np.dtype(TYPES[to]))


def _cast_like(x, like):
    return _as(x, like.dtype)


def _as(x: Array, dtype: np.dtype) -> Array:
    """The same numbers in another type; of whole numbers, JAX has those that it is set to."""
    return x.astype(jax.dtypes.canonicalize_dtype(dtype) if isinstance(x, jax.Array) else dtype)


def _reshape(x, shape: Host, *, allowzero=0):
    shape = [
        x.shape[axis] if n == 0 and not allowzero else n for axis, n in enumerate(shape.tolist())
    ]
    return x.reshape(shape)


def _flatten(x, *, axis=1):
    rows = int(np.prod(x.shape[: axis if axis >= 0 else x.ndim + axis]))
    return x.reshape(rows, x.size // rows)


def _squeeze(x, given: Host = None, *, axes=None):
    axes = axes if given is None else tuple(given.ravel().tolist())
    return library(x).squeeze(x, axes)


def _unsqueeze(x, given: Host = None, *, axes=None):
    return library(x).expand_dims(x, axes if given is None else tuple(given.ravel().tolist()))


def _transpose(x, *, perm=None):
    return library(x).transpose(x, perm)


def _concat(*arrays, axis):
    return library(*arrays).concatenate(arrays, axis)


def _split(x, sizes: Host = None, *, axis=0, split=None, num_outputs=None, outputs):
    sizes = split if sizes is None else sizes.tolist()
    if sizes is None:
        part = -(-x.shape[axis] // (num_outputs or outputs))
        sizes = np.minimum(part, x.shape[axis] - part * np.arange(num_outputs or outputs))
    return tuple(library(x).split(x, np.cumsum(sizes)[:-1].tolist(), axis))


def _slice(x, starts: Host, ends: Host, axes: Host = None, steps: Host = None):
    axes = range(len(starts)) if axes is None else axes.tolist()
    steps = np.ones(len(starts), int) if steps is None else steps
    where = [slice(None)] * x.ndim
    for axis, bounds in zip(
        axes, zip(starts.tolist(), ends.tolist(), steps.tolist(), strict=True), strict=True
    ):
        start, end, step = bounds
        size = x.shape[axis]
        if step < 0 and end < -size:  # up to and with the first
            end = None
        where[axis] = slice(start, end, step)
    return x[tuple(where)]


def _gather(x, indices, *, axis=0):
    if isinstance(indices, np.ndarray) and not indices.ndim:
        return x[(slice(None),) * (axis % x.ndim) + (int(indices),)]
    return library(x, indices).take(x, indices, axis)


def _gather_elements(x, indices, *, axis=0):
    return library(x, indices).take_along_axis(x, indices, axis)


def _gather_nd(x, indices, *, batch_dims=0):
    if batch_dims:
        raise ValueError("batch_dims must be 0")
    return x[tuple(library(indices).moveaxis(indices, -1, 0))]


def _scatter_nd(x, indices, updates, *, reduction="none"):
    if reduction != "none":
        raise ValueError(f"reduction must be 'none', got {reduction!r}")
    where = tuple(library(indices).moveaxis(indices, -1, 0))
    if library(x, indices, updates) is jnp:
        return jnp.asarray(x).at[where].set(updates)
    x = x.copy()
    x[where] = updates
    return x


def _expand(x, shape: Host):
    return library(x).broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape.tolist())))


def _tile(x, times: Host):
    _check_size(x.size * math.prod(times.tolist()))
    return library(x).tile(x, times.tolist())


def _nonzero(x: Host):
    return np.array(np.nonzero(x))


def _range(start: Host, limit: Host, delta: Host):
    _check_size((limit.item() - start.item()) / delta.item() if delta else math.inf)
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _shape(x, *, start=0, end=None):
    return np.array(x.shape[start:end], np.int64)


def _constant_of_shape(shape: Host, *, value=np.zeros(1, np.float32)):  # noqa: B008
    _check_size(math.prod(shape.tolist()))
    return np.full(shape.tolist(), value[0])


def _check_size(count: float) -> None:
    """Raise ValueError if a file of few bytes asks for an array that fills the memory."""
    if count > LARGEST:
        raise ValueError(f"it makes an array of {count:g} numbers; at most {LARGEST} are made")


def _one_hot(indices, depth: Host, values, *, axis=-1):
    hot = (indices % depth.item())[..., None] == np.arange(depth.item())
    xp = library(hot, values)
    return xp.moveaxis(xp.where(hot, values[1], values[0]), -1, axis)


def _trilu(x, k: Host = None, *, upper=1):
    xp = library(x)
    return (xp.triu if upper else xp.tril)(x, 0 if k is None else int(k))


def _cumsum(x, axis: Host, *, exclusive=0, reverse=0):
    xp, axis = library(x), int(axis)
    x = xp.flip(x, axis) if reverse else x
    total = xp.cumsum(x, axis).astype(x.dtype)
    total = total - x if exclusive else total
    return xp.flip(total, axis) if reverse else total


def _dropout(x, ratio=None, training: Host = None):
    if training is not None and training.any():
        raise ValueError(TRAINING)
    return x


def _pad(x, pads: Host, value=None, axes: Host = None, *, mode="constant"):
    widths = [(0, 0)] * x.ndim
    pads = pads.tolist()
    for place, axis in enumerate(range(x.ndim) if axes is None else axes.tolist()):
        widths[axis] = (pads[place], pads[place + len(pads) // 2])
    if mode == "constant":
        crop = [slice(max(-a, 0), min(n + b, n)) for n, (a, b) in zip(x.shape, widths, strict=True)]
        widths = [(max(a, 0), max(b, 0)) for a, b in widths]
        return library(x, value).pad(
            x[tuple(crop)], widths, constant_values=0 if value is None else value.reshape(())
        )
    return library(x).pad(x, widths, mode)


def _depth_to_space(x, *, blocksize, mode="DCR"):
    n, c, h, w = x.shape
    s, d = blocksize, c // blocksize**2
    if mode == "DCR":
        x = x.reshape(n, s, s, d, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(n, d, s, s, h, w).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(n, d, h * s, w * s)


def _space_to_depth(x, *, blocksize):
    n, c, h, w = x.shape
    s = blocksize
    x = x.reshape(n, c, h // s, s, w // s, s).transpose(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * s * s, h // s, w // s)


def _resize(
    x,
    roi: Host = None,
    scales: Host = None,
    sizes: Host = None,
    *,
    mode="nearest",
    coordinate_transformation_mode="half_pixel",
    nearest_mode="round_prefer_floor",
    cubic_coeff_a=-0.75,
    exclude_outside=0,
    antialias=0,
    axes=None,
    extrapolation_value=0.0,
    keep_aspect_ratio_policy="stretch",
):
    if antialias or keep_aspect_ratio_policy != "stretch":
        raise ValueError("neither antialias nor keep_aspect_ratio_policy is known")
    axes = range(x.ndim) if axes is None else axes
    given = scales if sizes is None or not sizes.size else sizes
    for axis, number in zip(axes, given.tolist(), strict=True):
        old = x.shape[axis]
        new = int(number) if given is sizes else int(np.floor(old * number))
        scale = new / old if given is sizes else number
        if new == old and scale == 1:
            continue
        place = PLACES.get(coordinate_transformation_mode)
        if place is None:
            raise ValueError(f"{coordinate_transformation_mode!r} is not known")
        at = place(np.arange(new), scale, old, new)
        if mode == "nearest":
            nearest = np.clip(ROUNDED[nearest_mode](at), 0, old - 1).astype(int)
            x = library(x).take(x, nearest, axis)
            continue
        weights = _taps(at, old, mode, cubic_coeff_a, exclude_outside).astype(np.float32)
        x = jnp.moveaxis(jnp.tensordot(x, weights, ((axis,), (1,))), -1, axis)
    return x


PLACES: dict[str, Callable] = {
    "half_pixel": lambda i, scale, old, new: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale, old, new: (i + 0.5) / scale - 0.5 if new > 1 else 0 * i,
    "align_corners": lambda i, scale, old, new: i * (old - 1) / max(new - 1, 1),
    "asymmetric": lambda i, scale, old, new: i / scale,
    "half_pixel_symmetric": lambda i, scale, old, new: (
        (1 - new / (old * scale)) * old / 2 + (i + 0.5) / scale - 0.5
    ),
}
"""Where a new pixel lies among the old ones."""

ROUNDED: dict[str, Callable] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _taps(at: np.ndarray, old: int, mode: str, a: float, exclude: int) -> np.ndarray:
    """(new, old): how much of each old pixel goes into a new one."""
    if mode not in ("linear", "cubic"):
        raise ValueError(f"the mode {mode!r} is not known")
    first = np.floor(at)
    weights = np.zeros((len(at), old))
    for tap in (0, 1) if mode == "linear" else (-1, 0, 1, 2):
        t = abs(at - first - tap)
        if mode == "linear":
            weight = 1 - t
        else:
            near = ((a + 2) * t - (a + 3)) * t * t + 1
            weight = np.where(t <= 1, near, ((t - 5) * t + 8) * t * a - 4 * a)
        place = (first + tap).astype(int)
        if exclude:
            weight = np.where((place >= 0) & (place < old), weight, 0)
        np.add.at(weights, (np.arange(len(at)), np.clip(place, 0, old - 1)), weight)
    return weights / weights.sum(1, keepdims=True)


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "Cast": _cast,
    "CastLike": _cast_like,
    "Identity": lambda x: x,
    "Dropout": _dropout,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
    "Expand": _expand,
    "Tile": _tile,
    "Shape": _shape,
    "Size": lambda x: np.array(x.size, np.int64),
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "OneHot": _one_hot,
    "Trilu": _trilu,
    "CumSum": _cumsum,
    "NonZero": _nonzero,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Resize": _resize,
}
