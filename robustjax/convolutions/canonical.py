"""Any convolution, in the one layout that XLA:CPU has a fast kernel for.

In the entry computation the compiler brings convolutions into that layout itself. Inside a loop it
does not, and one of another layout takes several times as long there; the gradients that JAX makes
have another layout. Here the program transposes values and gradients, but only when it is lowered
for a CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from robustjax.convolutions.conv2d import NHWC, has_fast_gradients, padded_conv2d
from robustjax.convolutions.programs import rewritten

KEPT = (
    "window_strides",
    "padding",
    "lhs_dilation",
    "rhs_dilation",
    "precision",
    "preferred_element_type",
)
"""The settings that hold in every layout."""


def fast(plain: Callable, settings: Mapping[str, Any], x: jax.Array, w: jax.Array) -> jax.Array:
    """A convolution whose value and gradients are fast; as it stands if it has groups.

    It supports reverse mode of any order, but no `jax.jvp`. A rule for `programs.rewritten`.
    """
    if settings["feature_group_count"] > 1 or settings["batch_group_count"] > 1:
        return plain(x, w)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return plain(x, w)
    if is_padded_conv2d(settings, x, w):
        stride, padding = settings["window_strides"][0], settings["padding"][0]
        return padded_conv2d(x, w, stride, 1, padding)

    def of_image(x, w, g):
        return jax.linear_transpose(lambda x: plain(x, w), x)(g)[0]

    def of_kernel(x, w, g):
        return jax.linear_transpose(lambda w: plain(x, w), w)(g)[0]

    def chosen(form, *args):
        return lax.platform_dependent(*args, cpu=rewritten(form, in_canonical_layout), default=form)

    own: Any = jax.custom_vjp(functools.partial(chosen, plain))

    def backward(residuals, g):
        return chosen(of_image, *residuals, g), chosen(of_kernel, *residuals, g)

    own.defvjp(lambda x, w: (own(x, w), (x, w)), backward)
    return own(x, w)


def is_padded_conv2d(settings: Mapping[str, Any], x: jax.Array, w: jax.Array) -> bool:
    """Whether it is what `padded_conv2d` computes with fast gradients."""
    layout = lax.conv_dimension_numbers(x.shape, w.shape, NHWC if x.ndim == 4 else None)
    strides, paddings = set(settings["window_strides"]), set(settings["padding"])
    dilations = {*settings["lhs_dilation"], *settings["rhs_dilation"]}
    if settings["dimension_numbers"] != layout or x.ndim != 4 or dilations != {1}:
        return False
    if settings["precision"] is not None or len(strides) > 1 or len(paddings) > 1:
        return False
    if settings["preferred_element_type"] not in (None, x.dtype) or w.dtype != x.dtype:
        return False
    return has_fast_gradients(x.shape, w.shape, *strides, *paddings)


def in_canonical_layout(
    plain: Callable, settings: Mapping[str, Any], x: jax.Array, w: jax.Array
) -> jax.Array:
    """A convolution without groups, by way of (N, ..., C) images and (..., I, O) kernels."""
    del plain
    dimensions = settings["dimension_numbers"]
    (batch, channel, *space), out = dimensions.lhs_spec, dimensions.out_spec
    features, inputs, *taps = dimensions.rhs_spec
    n = len(space)
    image = 0, n + 1, *range(1, n + 1)
    y = lax.conv_general_dilated(
        jnp.transpose(x, (batch, *space, channel)),
        jnp.transpose(w, (*taps, inputs, features)),
        **{name: settings[name] for name in KEPT},
        dimension_numbers=lax.ConvDimensionNumbers(image, (n + 1, n, *range(n)), image),
    )
    places = out[0], *out[2:], out[1]  # where the axes of y go
    return jnp.transpose(y, np.argsort(places).tolist())
