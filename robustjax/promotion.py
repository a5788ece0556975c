"""Arithmetic under JAX's usual promotion, whatever the caller's program asks for."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def promoting(function: Callable[P, T]) -> Callable[P, T]:
    """The same function under `jax_numpy_dtype_promotion='standard'`.

    A counter times a step size is an error under 'strict', which is meant for code of one's own.

    >>> with jax.numpy_dtype_promotion("strict"):
    ...     print(promoting(lambda steps, size: steps * size)(jnp.int32(2), jnp.float32(0.25)))
    0.5
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return run


@contextlib.contextmanager
def usual() -> Iterator[None]:
    """JAX's promotion of types and of ranks for code of others, which may count on both.

    >>> with jax.numpy_rank_promotion("raise"), usual():
    ...     print((jnp.ones((2, 3)) + jnp.ones(3)).shape)
    (2, 3)
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
