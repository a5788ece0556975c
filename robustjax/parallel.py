"""The one file that knows devices: the one pmap, its emulation by vmap, and how arrays get there.

`jax.pmap` is in maintenance mode upstream and today `jit(shard_map)` underneath; it is kept because
its contract (a per-device function with explicit collectives) is the one the training step states.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Device = Any
"""A `jax.Device`, to type checkers: jaxlib does not say what one is."""

AXIS = "batch"
"""The name of the device axis: what a collective inside a per-device function reduces over."""


def data_parallel(
    function: Callable,
    in_axes: Any,
    out_axes: Any,
    donate_argnums: int | Sequence[int] = (),
    devices: Sequence[Device] | None = None,
) -> Callable:
    """Run a per-device function over all devices (all processes): the one pmap.

    An output with `out_axes=None` must have been reduced over `AXIS`; pmap returns device 0's value
    without a look at the others. `emulate` refuses such an output, so it is the proof.
    """
    return jax.pmap(
        function,
        axis_name=AXIS,
        in_axes=in_axes,
        out_axes=out_axes,
        donate_argnums=donate_argnums,
        devices=devices,
    )


def emulate(function: Callable, in_axes: Any, out_axes: Any) -> Callable:
    """The same program on one device: `jit(vmap)` over the shard axis, with the same prefixes."""
    return jax.jit(jax.vmap(function, in_axes=in_axes, out_axes=out_axes, axis_name=AXIS))


def split(tree: Any, shards: int) -> Any:
    """Reshape every leaf (N, ...) to (shards, N / shards, ...).

    Raises:
      ValueError: N is not a multiple of `shards`.
    """

    def reshape(a):
        if a.shape[0] % shards:
            raise ValueError(
                f"{a.shape[0]} examples do not divide over {shards} devices; "
                f"choose a batch size that is a multiple of {shards}"
            )
        return a.reshape(shards, a.shape[0] // shards, *a.shape[1:])

    return jax.tree.map(reshape, tree)


def merge(tree: Any) -> Any:
    """The inverse of `split`: (shards, n, ...) -> (shards * n, ...)."""
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), tree)


def place(tree: Any, axes: Any) -> Any:
    """Put a tree where `data_parallel` leaves it, so that its first call compiles once.

    Args:
      tree: arrays; a leading axis is this process's devices.
      axes: prefix of `tree` with None (replicated) or 0 (leading axis: the devices).
    """

    def put(leaf, mesh, spec):
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return _with_mesh(jax.local_devices(), put, tree, axes)


def to_global(tree: Any, axes: Any) -> Any:
    """What `data_parallel` returns, one piece a process, as arrays over all processes (Orbax)."""
    return _with_mesh(jax.devices(), multihost_utils.host_local_array_to_global_array, tree, axes)


def to_local(tree: Any, axes: Any) -> Any:
    """The inverse of `to_global`."""
    return _with_mesh(jax.devices(), multihost_utils.global_array_to_host_local_array, tree, axes)


def _with_mesh(devices: Sequence[Device], function: Callable, tree: Any, axes: Any) -> Any:
    """`function(leaf, mesh, spec)` of every leaf."""
    mesh = Mesh(np.asarray(devices), (AXIS,))

    def visit(axis, subtree):
        spec = PartitionSpec() if axis is None else PartitionSpec(AXIS)
        return jax.tree.map(lambda leaf: function(leaf, mesh, spec), subtree)

    return jax.tree.map(visit, axes, tree, is_leaf=lambda axis: axis is None)


def barrier(name: str) -> None:
    """Wait until every process is here."""
    multihost_utils.sync_global_devices(name)


def agree(value: float) -> float:
    """Process 0's value, on every process."""
    return float(multihost_utils.broadcast_one_to_all(np.float64(value)))


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process."""
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def use_all_cores(batch_size: int = 16) -> None:
    """On the CPU, make a device of each core: faster than one device with many threads.

    A power of two of them, at most 16, that divides the batch size: by default the usual ones.

    Call it before anything touches a device: later it is too late, and devices stay as they are,
    as GPUs and TPUs do, and a number that was set already (`JAX_NUM_CPU_DEVICES`).
    """
    options: Any = jax.config
    if options.jax_num_cpu_devices < 0:
        devices = 1 << (min(usable_cores(), 16).bit_length() - 1)
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", math.gcd(devices, batch_size))


def usable_cores() -> int:
    """The cores that this process may run on; all of them where the platform does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start(coordinator: str | None, processes: int, process: int) -> None:
    """Join a multi-process run (`jax.distributed`); TPU pods find all three by themselves."""
    jax.distributed.initialize(coordinator, processes, process)
