"""Rows as shards, one for each device, and back."""

from __future__ import annotations

import functools
from typing import Any

import jax

from robustjax.checks import INF, check_arrays, checked


@checked(tree=functools.partial(check_arrays, axes=1), shards=(1, INF))
def split(tree: Any, shards: int) -> Any:
    """Reshape every leaf (N, ...) to (shards, N / shards, ...).

    Raises:
      ValueError: N is not a multiple of `shards`.

    >>> rj.parallel.split({"label": np.arange(6)}, 2)
    {'label': array([[0, 1, 2],
           [3, 4, 5]])}
    """

    def reshape(a):
        if a.shape[0] % shards:
            raise ValueError(
                f"{a.shape[0]} examples cannot be split evenly over {shards} devices; "
                f"choose a batch size that is a multiple of {shards}"
            )
        return a.reshape(shards, a.shape[0] // shards, *a.shape[1:])

    return jax.tree.map(reshape, tree)


@checked(tree=functools.partial(check_arrays, axes=2))
def merge(tree: Any) -> Any:
    """The inverse of `split`: (shards, n, ...) -> (shards * n, ...).

    >>> rj.parallel.merge({"label": np.array([[0, 1, 2], [3, 4, 5]])})
    {'label': array([0, 1, 2, 3, 4, 5])}
    """
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), tree)
