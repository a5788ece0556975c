"""ONNX's functions of single numbers, reductions and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.models.onnx.arrays import Array, Host, library


def _plain(name: str) -> Callable[..., Array]:
    """The function of this name in both libraries."""
    return lambda *arrays: getattr(library(*arrays), name)(*arrays)


def _folded(name: str) -> Callable[..., Array]:
    """A function of two arrays, over any number."""

    def fold(*arrays):
        total = arrays[0]
        for array in arrays[1:]:
            total = getattr(library(total, array), name)(total, array)
        return total

    return fold


def _mean(*arrays):
    return _folded("add")(*arrays) / len(arrays)


def _divide(a, b):
    if np.issubdtype(a.dtype, np.integer):  # towards zero, as in C
        xp = library(a, b)
        return xp.sign(a) * xp.sign(b) * (abs(a) // abs(b))
    return a / b


def _mod(a, b, *, fmod=0):
    return (_plain("fmod") if fmod else _plain("mod"))(a, b)


def _power(x, exponent):
    if isinstance(exponent, np.ndarray) and not exponent.ndim and float(exponent).is_integer():
        return x ** int(exponent)
    return library(x, exponent).power(x, exponent).astype(x.dtype)


def _clip(x, low=None, high=None):
    """Gradients vanish on the bounds, as that of ReLU does at 0; numbers that are none stay."""
    where = library(x).where
    x = x if low is None else where(x <= low, low, x).astype(x.dtype)
    return x if high is None else where(x >= high, high, x).astype(x.dtype)


def _prelu(x, slope):
    return jnp.where(x < 0, slope * x, x)


def _gelu(x, *, approximate="none"):
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def _hard_sigmoid(x, *, alpha=0.2, beta=0.5):
    return _clip(alpha * x + beta, np.float32(0), np.float32(1))


def _hard_swish(x):
    return x * _hard_sigmoid(x, alpha=1 / 6)


def _thresholded(x, *, alpha=1.0):
    return jnp.where(x > alpha, x, 0)


def _selu(x, *, alpha=1.6732632423543772, gamma=1.0507009873554805):
    return gamma * jax.nn.elu(x, alpha)


def _softmax(function: Callable) -> Callable[..., Array]:
    def normalise(x, *, axis=None, opset):
        if opset >= 13:
            return function(x, axis=-1 if axis is None else axis)
        rows = math.prod(x.shape[: 1 if axis is None else axis % x.ndim])
        return function(x.reshape(rows, -1), axis=-1).reshape(x.shape)

    return normalise


def _reduced(function: Callable) -> Callable[..., Array]:
    def reduce(x, given: Host = None, *, axes=None, keepdims=1, noop_with_empty_axes=0):
        axes = axes if given is None else given.tolist()
        if not axes and noop_with_empty_axes:
            return x
        return function(library(x), x, axis=tuple(axes) if axes else None, keepdims=bool(keepdims))

    return reduce


def _norm(xp, x, **over):
    squares = xp.sum(x * x, **over)
    return xp.sqrt(xp.where(squares > 0, squares, 1)) * (squares > 0)  # no gradient at 0


def _extreme(name: str) -> Callable[..., Array]:
    def find(x, *, axis=0, keepdims=1, select_last_index=0):
        xp = library(x)
        if select_last_index:
            last = x.shape[axis] - 1 - getattr(xp, name)(xp.flip(x, axis), axis=axis)
            return xp.expand_dims(last, axis) if keepdims else last
        return getattr(xp, name)(x, axis=axis, keepdims=bool(keepdims))

    return find


def _is_infinite(x, *, detect_negative=1, detect_positive=1):
    xp = library(x)
    return xp.isinf(x) & (((x < 0) & bool(detect_negative)) | ((x > 0) & bool(detect_positive)))


UNARY = ("Abs", "Exp", "Log", "Sqrt", "Floor", "Ceil", "Sign")
UNARY += ("Sin", "Cos", "Tan", "Sinh", "Cosh", "Tanh", "IsNaN")
OTHERS = {
    "Equal": "equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "And": "logical_and",
    "Or": "logical_or",
    "Xor": "logical_xor",
    "Not": "logical_not",
    "Add": "add",
    "Sub": "subtract",
    "Mul": "multiply",
    "Neg": "negative",
    "Round": "rint",
    "Reciprocal": "reciprocal",
    "Asin": "arcsin",
    "Acos": "arccos",
    "Atan": "arctan",
    "Where": "where",
}
FUNCTIONS: dict[str, Callable[..., Array]] = {
    **{name: _plain(name.lower()) for name in UNARY},
    **{name: _plain(other) for name, other in OTHERS.items()},
    "Div": _divide,
    "Mod": _mod,
    "Pow": _power,
    "Sum": _folded("add"),
    "Max": _folded("maximum"),
    "Min": _folded("minimum"),
    "Mean": _mean,
    "Clip": _clip,
    "IsInf": _is_infinite,
    "Erf": jax.scipy.special.erf,
    "Relu": lambda x: jax.nn.relu(x),
    "LeakyRelu": lambda x, *, alpha=0.01: jax.nn.leaky_relu(x, alpha),
    "PRelu": _prelu,
    "Elu": lambda x, *, alpha=1.0: jax.nn.elu(x, alpha),
    "Celu": lambda x, *, alpha=1.0: jax.nn.celu(x, alpha),
    "Selu": _selu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Sigmoid": lambda x: jax.nn.sigmoid(x),
    "Swish": lambda x, *, alpha=1.0: x * jax.nn.sigmoid(alpha * x),
    "Softplus": lambda x: jax.nn.softplus(x),
    "Softsign": lambda x: jax.nn.soft_sign(x),
    "Mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "ThresholdedRelu": _thresholded,
    "Softmax": _softmax(jax.nn.softmax),
    "LogSoftmax": _softmax(jax.nn.log_softmax),
    "ReduceSum": _reduced(lambda xp, x, **over: xp.sum(x, **over)),
    "ReduceMean": _reduced(lambda xp, x, **over: xp.mean(x, **over)),
    "ReduceMax": _reduced(lambda xp, x, **over: xp.max(x, **over)),
    "ReduceMin": _reduced(lambda xp, x, **over: xp.min(x, **over)),
    "ReduceProd": _reduced(lambda xp, x, **over: xp.prod(x, **over)),
    "ReduceL1": _reduced(lambda xp, x, **over: xp.sum(xp.abs(x), **over)),
    "ReduceL2": _reduced(_norm),
    "ReduceSumSquare": _reduced(lambda xp, x, **over: xp.sum(x * x, **over)),
    "ReduceLogSumExp": _reduced(lambda xp, x, **over: jax.nn.logsumexp(x, **over)),
    "ArgMax": _extreme("argmax"),
    "ArgMin": _extreme("argmin"),
}
