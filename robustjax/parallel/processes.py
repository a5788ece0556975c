"""Several processes as one run: they wait for each other, agree, and share rows."""

from __future__ import annotations

import functools
import zlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from robustjax.checks import INF, check_arrays, checked


@checked
def initialize(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Join a run of several processes (`jax.distributed`), before any other use of JAX.

    Args:
      coordinator: host:port of process 0.
      processes: their number.
      process: this one's rank, from 0. All three None: detected from the environment (TPU pods).

    >>> rj.parallel.initialize("10.0.0.1:1234", 2, 0)  # doctest: +SKIP
    """
    jax.distributed.initialize(coordinator, processes, process)


@checked
def barrier(name: str) -> None:
    """Wait until every process has reached this call.

    >>> rj.parallel.barrier("the data are on disk")  # one process does not wait
    """
    multihost_utils.sync_global_devices(name)


@checked(host=True, value=(-INF, INF))
def broadcast(value: float) -> float:
    """Process 0's value, on every process.

    >>> rj.parallel.broadcast(0.5)
    0.5
    """
    return float(multihost_utils.broadcast_one_to_all(np.float64(value)))


@checked
def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process.

    >>> interrupted = False
    >>> rj.parallel.any_process(interrupted)
    False
    """
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


@checked(host=True)
def gather(array: jax.Array) -> np.ndarray:
    """All of a global array, on every process.

    >>> rj.parallel.gather(jnp.arange(3)).tolist()
    [0, 1, 2]
    """
    if not isinstance(array, jax.Array):
        return np.asarray(array)
    if array.is_fully_replicated:
        return np.asarray(array.addressable_data(0))
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


@checked(tree=functools.partial(check_arrays, axes=1))
def share(tree: Any) -> Any:
    """This process's rows of arrays that all processes have: every P-th of P processes.

    All shares are of one size; where the rows do not divide evenly, some repeat the last row.

    >>> rj.parallel.share({"label": np.arange(3)})  # one process has them all
    {'label': array([0, 1, 2])}
    """
    processes, process = jax.process_count(), jax.process_index()
    if processes == 1:
        return tree
    count = len(jax.tree.leaves(tree)[0])
    rows = np.minimum(np.arange(-(-count // processes)) * processes + process, count - 1)
    return jax.tree.map(lambda a: a[rows], tree)


@checked(tree=functools.partial(check_arrays, axes=1), count=(1, INF))
def join(tree: Any, count: int) -> Any:
    """The inverse of `share`: all `count` rows, on every process.

    >>> rj.parallel.join({"label": np.arange(3)}, 3)
    {'label': array([0, 1, 2])}
    """
    if jax.process_count() == 1:
        return tree
    shares = multihost_utils.process_allgather(tree)
    return jax.tree.map(lambda a: np.swapaxes(a, 0, 1).reshape(-1, *a.shape[2:])[:count], shares)


@checked
def check_same(about: dict[str, Any]) -> None:
    """Raise ValueError on every process unless all of them have the same arrays and texts.

    >>> rj.parallel.check_same({"images": np.zeros((2, 4, 4, 1))})  # one process agrees with itself
    """
    if jax.process_count() == 1:
        return
    digests = np.asarray([_digest(tree) for tree in about.values()], np.int32)
    found = multihost_utils.process_allgather(digests)
    same = (found == found[0]).all(0)
    wrong = [name for name, agreed in zip(about, same, strict=True) if not agreed]
    if wrong:
        raise ValueError(
            f"the processes of this run were given different {', '.join(wrong)}: give all of them "
            "the same, each takes its share by itself"
        )


def _digest(tree: Any) -> int:
    """31 bits that depend on every byte of the arrays and texts of a tree."""
    found = 0
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        found = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), found)
    return found >> 1
