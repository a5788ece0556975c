"""The one file that knows devices: the one pmap, its emulation by vmap, and where arrays live.

`jax.pmap` is in maintenance mode upstream; today it is `jit(shard_map)` underneath. We keep it for
its contract, a per-device function with explicit collectives, which is how a training step is
written.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from robustjax.checks import INF, check_arrays, checked, shown
from robustjax.promotion import promoting

Device = Any
"""A `jax.Device`, whose type jaxlib does not tell type checkers."""

AXIS = "batch"
"""The name of the device axis, over which collectives inside a per-device function reduce."""


def _check_axes(name: str, axes: Any) -> None:
    """Raise ValueError unless axes are None and 0, alone or in a pytree."""
    if isinstance(axes, list | dict) and not axes:
        raise ValueError(f"{name} must be None, 0 or a pytree of these, got {axes}")
    for axis in jax.tree.leaves(axes):
        if axis is False or not isinstance(axis, int) or axis:
            raise ValueError(f"{name} must be None, 0 or a pytree of these, got {shown(axis)}")


@checked(in_axes=_check_axes, out_axes=_check_axes, donate_argnums=(0, INF))
def data_parallel(
    function: Callable,
    in_axes: Any,
    out_axes: Any,
    donate_argnums: int | Sequence[int] = (),
    devices: Sequence[Device] | None = None,
) -> Callable:
    """Run a per-device function on all devices of all processes: the one pmap.

    An output with `out_axes=None` must have been reduced over `AXIS`: pmap returns device 0's value
    without checking the others. `emulate` checks: it rejects an output that was not reduced.

    Args:
      function: sees one device's shard; collectives reduce over `AXIS`.
      in_axes, out_axes: None for values all devices share, 0 for shards along the leading axis.
      donate_argnums: arguments whose memory the outputs may reuse.
      devices: the devices to run on; None is all.

    >>> mean = rj.parallel.data_parallel(lambda x: jax.lax.pmean(x, rj.parallel.AXIS), 0, None)
    >>> float(mean(jnp.full(jax.device_count(), 3.0)))  # one number for each device
    3.0
    """
    if devices is not None and not (
        len(devices) and all(isinstance(device, jax.Device) for device in devices)
    ):
        raise ValueError(f"devices must be a list such as jax.devices(), got {shown(devices)}")
    return jax.pmap(
        promoting(function),
        axis_name=AXIS,
        in_axes=in_axes,
        out_axes=out_axes,
        donate_argnums=donate_argnums,
        devices=devices,
    )


@checked(in_axes=_check_axes, out_axes=_check_axes)
def emulate(function: Callable, in_axes: Any, out_axes: Any) -> Callable:
    """The same program on one device: `jit(vmap)` over the shard axis, with the same axes.

    The reference that `data_parallel` is tested against, on as many shards as one likes.

    >>> mean = rj.parallel.emulate(lambda x: jax.lax.pmean(x, rj.parallel.AXIS), 0, None)
    >>> float(mean(jnp.arange(8.0)))  # eight emulated devices
    3.5
    """
    function = promoting(function)
    return jax.jit(jax.vmap(function, in_axes=in_axes, out_axes=out_axes, axis_name=AXIS))


@checked(in_axes=_check_axes, out_axes=_check_axes, donate_argnums=(0, INF))
def spread(
    function: Callable,
    in_axes: Any,
    out_axes: Any,
    donate_argnums: int | Sequence[int] = (),
    devices: Sequence[Device] | None = None,
) -> Callable:
    """The program of `data_parallel` where each device has a part of what all of them share.

    The compiler gathers a large array where it is needed and lets each device update its own part
    (fully sharded data parallelism): `jit(vmap)` over the shard axis, as `emulate`, with the
    shardings of `scatter`. Results differ from those of `data_parallel` by rounding.

    Args:
      function, in_axes, out_axes, donate_argnums, devices: as for `data_parallel`. Shared arguments
        stay where they are: put them in their parts by `scatter`. Shared outputs are in parts.

    >>> mean = rj.parallel.spread(lambda x: jax.lax.pmean(x, rj.parallel.AXIS), 0, None)
    >>> float(mean(jnp.full(jax.device_count(), 3.0)))  # one number for each device
    3.0
    """
    mesh = Mesh(np.asarray(jax.devices() if devices is None else devices), (AXIS,))
    mapped = jax.vmap(promoting(function), in_axes, out_axes, axis_name=AXIS)

    def program(*args):
        outputs = mapped(*args)
        return _along(out_axes, outputs, lambda leaf, axis: _constrain(leaf, axis, mesh))

    compiled = jax.jit(program, donate_argnums=donate_argnums)
    if jax.process_count() == 1 or devices is not None:
        return compiled

    return lambda *args: compiled(*_along(in_axes, args, lambda a, axis: _joined(a, axis, mesh)))


@checked(tree=check_arrays, axes=_check_axes)
def scatter(tree: Any, axes: Any) -> Any:
    """Put each large array of a tree in parts on all devices of all processes, for `spread`.

    An array is cut along its longest axis that divides evenly; small ones are on every device.

    Args:
      tree: arrays, the same on every process; with one entry per device along the leading axis
        where `axes` is 0.
      axes: prefix of `tree` with None or 0.

    >>> weights = rj.parallel.scatter({"kernel": jnp.ones((64, 256))}, None)["kernel"]
    >>> weights.addressable_data(0).size * jax.device_count() == weights.size
    True
    """
    mesh = Mesh(np.asarray(jax.devices()), (AXIS,))
    return _along(axes, tree, lambda leaf, axis: jax.device_put(leaf, _part(leaf, axis, mesh)))


@checked(tree=check_arrays)
def whole(tree: Any) -> Any:
    """A scattered tree, whole on every device.

    >>> rj.parallel.whole(rj.parallel.scatter(jnp.arange(4096), None)).sharding.is_fully_replicated
    True
    """
    mesh = Mesh(np.asarray(jax.devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


@checked(axes=_check_axes)
def shapes(tree: Any, axes: Any, devices: Sequence[Device], parts: bool) -> Any:
    """Shapes that say where arrays will live, to compile `spread` without arrays or devices.

    Args:
      tree: `jax.ShapeDtypeStruct`; other leaves stay as they are.
      axes, devices: as for `spread`.
      parts: whether large arrays live in parts, as `scatter` leaves them, or whole on every device,
        as `place` does.

    >>> weights = jax.ShapeDtypeStruct((64, 256), jnp.float32)
    >>> found = rj.parallel.shapes(weights, None, jax.devices(), parts=True)
    >>> found.sharding.shard_shape(found.shape)[1] * jax.device_count()
    256
    """
    mesh = Mesh(np.asarray(devices), (AXIS,))

    def one(leaf, axis):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        whole = NamedSharding(mesh, PartitionSpec())
        where = _part(leaf, axis, mesh) if parts or axis == 0 else whole
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return _along(axes, tree, one)


LEAST = 1024
"""Entries of the smallest array that is cut."""


def _part(leaf: Any, axis: int | None, mesh: Mesh) -> NamedSharding:
    """Where a leaf lives: axis 0 means one entry per device; None: in parts if it is large."""
    if axis == 0:
        return NamedSharding(mesh, PartitionSpec(AXIS))
    even = [i for i, length in enumerate(leaf.shape) if length % mesh.size == 0]
    if leaf.size < LEAST or not even:
        return NamedSharding(mesh, PartitionSpec())
    longest = max(even, key=lambda i: leaf.shape[i])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, AXIS))


def _joined(leaf: Any, axis: int | None, mesh: Mesh) -> Any:
    """What `place` has put on this process's devices, as a part of a global array."""
    local = isinstance(leaf, jax.Array) and leaf.is_fully_addressable
    if not local or jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    parts = [shard.data for shard in leaf.addressable_shards]
    if len(parts) < jax.local_device_count():
        return np.asarray(leaf)
    shape = leaf.shape if axis is None else (mesh.size, *leaf.shape[1:])
    spec = PartitionSpec() if axis is None else PartitionSpec(AXIS)
    return jax.make_array_from_single_device_arrays(shape, NamedSharding(mesh, spec), parts)


def _constrain(leaf: jax.Array, axis: int | None, mesh: Mesh) -> jax.Array:
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    return jax.lax.with_sharding_constraint(leaf, _part(leaf, axis, mesh))


def _along(axes: Any, tree: Any, function: Callable) -> Any:
    """Map `function(leaf, axis)` over the leaves of a tree, of which `axes` is a prefix."""

    def visit(axis, subtree):
        return jax.tree.map(lambda leaf: function(leaf, axis), subtree)

    return jax.tree.map(visit, axes, tree, is_leaf=lambda axis: axis is None)


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


@checked(tree=check_arrays, axes=_check_axes)
def place(tree: Any, axes: Any) -> Any:
    """Put a tree where `data_parallel` leaves its outputs, so that the first call compiles once.

    Args:
      tree: arrays; a sharded one has this process's devices as its leading axis.
      axes: prefix of `tree` with None (replicated) or 0 (leading axis: the devices).

    >>> state = rj.parallel.place({"weights": jnp.ones((2, 3))}, None)
    >>> state["weights"].sharding.is_fully_replicated
    True
    """

    def put(leaf, mesh, spec):
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return _with_mesh(jax.local_devices(), put, tree, axes)


@checked(tree=check_arrays, axes=_check_axes)
def to_global(tree: Any, axes: Any) -> Any:
    """Join each process's part of what `data_parallel` returns into global arrays, as Orbax needs.

    With one process the arrays are the same:

    >>> rj.parallel.to_global(jnp.arange(jax.device_count()), 0).shape == (jax.device_count(),)
    True
    """
    return _with_mesh(jax.devices(), multihost_utils.host_local_array_to_global_array, tree, axes)


@checked(tree=check_arrays, axes=_check_axes)
def to_local(tree: Any, axes: Any) -> Any:
    """The inverse of `to_global`: this process's part of global arrays.

    >>> shards = jnp.arange(jax.device_count())
    >>> bool((rj.parallel.to_local(rj.parallel.to_global(shards, 0), 0) == shards).all())
    True
    """
    return _with_mesh(jax.devices(), multihost_utils.global_array_to_host_local_array, tree, axes)


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


def _with_mesh(devices: Sequence[Device], function: Callable, tree: Any, axes: Any) -> Any:
    """Map `function(leaf, mesh, spec)` over the leaves."""
    mesh = Mesh(np.asarray(devices), (AXIS,))

    def visit(axis, subtree):
        spec = PartitionSpec() if axis is None else PartitionSpec(AXIS)
        check_arrays("tree", subtree, axes=0 if axis is None else 1)
        return jax.tree.map(lambda leaf: function(leaf, mesh, spec), subtree)

    try:
        return jax.tree.map(visit, axes, tree, is_leaf=lambda axis: axis is None)
    except ValueError as error:
        raise ValueError(f"axes must be a prefix of the tree: {error}") from error


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


@checked(batch_size=(1, INF))
def use_all_cores(batch_size: int = 16) -> None:
    """Make one CPU device per core, which is faster than one device with many threads.

    The number of devices is a power of two, at most 16, that divides `batch_size`. GPUs and TPUs
    stay as they are, and so does a number that is already set (`JAX_NUM_CPU_DEVICES`).

    Call it before JAX initialises; afterwards it has no effect.

    >>> rj.parallel.use_all_cores(batch_size=128)  # 8 devices on a machine with 12 cores
    """
    options: Any = jax.config
    if options.jax_num_cpu_devices < 0:
        devices = 1 << (min(usable_cores(), 16).bit_length() - 1)
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", math.gcd(devices, batch_size))


def usable_cores() -> int:
    """The number of cores this process may run on; all of them if the platform does not say.

    >>> rj.parallel.usable_cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_memory() -> int:
    """Bytes of memory of one of this process's devices; CPU devices share the machine's.

    >>> rj.parallel.device_memory() > 1 << 20
    True
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return machine_memory() // jax.local_device_count()


def machine_memory() -> int:
    """Bytes that this process may use: the machine's, or its container's.

    >>> rj.parallel.machine_memory() > 1 << 20
    True
    """
    if not hasattr(os, "sysconf"):  # Windows does not say
        return 4 << 30
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no limit: the file is missing, or says 'max'
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found


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
