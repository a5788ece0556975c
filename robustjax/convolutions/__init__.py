"""Convolutions that are as fast inside loops on the CPU as outside, and plain elsewhere.

conv2d     the one of our networks, with gradients written for it.
canonical  any other one.
programs   finds them in a function, whoever wrote it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from robustjax.convolutions.canonical import fast
from robustjax.convolutions.conv2d import conv2d
from robustjax.convolutions.programs import convolves, rewritten

__all__ = ["conv2d", "is_slow_in_a_loop", "with_fast_convolutions"]


def with_fast_convolutions(function: Callable) -> Callable:
    """The same function, whose convolutions have fast gradients in a loop on the CPU.

    XLA:CPU convolves fast in the entry computation only. In a loop, such as an attack under `jit`
    or `lax.scan` over training steps, it takes several times as long. Here the function is traced,
    and every convolution in it computes the same by another program: with `lax`, `nn.Conv`, NNX,
    Equinox or Haiku alike, in loops too. Those with groups, and those inside of custom derivatives,
    stay as they are. With an accelerator it is the function itself.

    Args:
      function: such as `apply(params, images)`; what is no array in its arguments is constant.

    Returns:
      A function to be used under `jit`. It supports reverse mode of any order, but no `jax.jvp`.

    >>> def apply(kernel, images):
    ...     return jax.lax.conv(images, kernel, (2, 2), "SAME").mean((2, 3))
    >>> images, kernel = jnp.ones((1, 3, 8, 8)), jnp.ones((4, 3, 3, 3))
    >>> quick = jax.jit(rj.models.with_fast_convolutions(apply))
    >>> quick(kernel, images).shape
    (1, 4)
    """
    quick = rewritten(function, fast)

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        chosen = quick if jax.default_backend() == "cpu" else function
        return chosen(*args, **kwargs)

    return run


def is_slow_in_a_loop(function: Callable, *args: Any) -> bool:
    """Whether a function convolves in a way that XLA:CPU slows down in a loop.

    Args:
      function: of pytrees of arrays.
      args: its arguments, or their shapes.

    >>> image, kernel = jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 8))
    >>> from robustjax.convolutions import is_slow_in_a_loop, with_fast_convolutions
    >>> def plain(x, w):
    ...     return jax.lax.conv_general_dilated(
    ...         x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ...     )
    >>> is_slow_in_a_loop(plain, image, kernel)
    True
    >>> is_slow_in_a_loop(with_fast_convolutions(plain), image, kernel)
    False
    """
    return convolves(jax.make_jaxpr(function)(*args).jaxpr)
