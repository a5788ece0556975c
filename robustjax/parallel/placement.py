"""Where arrays live: on every device, in shards, or in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from robustjax.checks import check_arrays, checked
from robustjax.parallel.axes import AXIS, Device, along, check_axes

LEAST = 1024
"""Entries of the smallest array that is cut."""


@checked(tree=check_arrays, axes=check_axes)
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


@checked(tree=check_arrays, axes=check_axes)
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
    return along(axes, tree, lambda leaf, axis: jax.device_put(leaf, _part(leaf, axis, mesh)))


@checked(tree=check_arrays)
def whole(tree: Any) -> Any:
    """A scattered tree, whole on every device.

    >>> rj.parallel.whole(rj.parallel.scatter(jnp.arange(4096), None)).sharding.is_fully_replicated
    True
    """
    mesh = Mesh(np.asarray(jax.devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


@checked(tree=check_arrays, axes=check_axes)
def to_global(tree: Any, axes: Any) -> Any:
    """Join each process's part of what `data_parallel` returns into global arrays, as Orbax needs.

    With one process the arrays are the same:

    >>> rj.parallel.to_global(jnp.arange(jax.device_count()), 0).shape == (jax.device_count(),)
    True
    """
    return _with_mesh(jax.devices(), multihost_utils.host_local_array_to_global_array, tree, axes)


@checked(tree=check_arrays, axes=check_axes)
def to_local(tree: Any, axes: Any) -> Any:
    """The inverse of `to_global`: this process's part of global arrays.

    >>> shards = jnp.arange(jax.device_count())
    >>> bool((rj.parallel.to_local(rj.parallel.to_global(shards, 0), 0) == shards).all())
    True
    """
    return _with_mesh(jax.devices(), multihost_utils.global_array_to_host_local_array, tree, axes)


@checked(tree=check_arrays)
def hold(tree: Any, parts: bool, devices: Sequence[Device] | None = None) -> Any:
    """Values of a `spread` program that from here on are whole, or in the parts of `scatter`.

    The compiler moves them once, here, instead of wherever they are used.

    Args:
      tree: what all devices share.
      parts: in parts, or whole on every device.
      devices: of the program; None is all.

    >>> double = jax.jit(lambda w: 2 * rj.parallel.hold(w, parts=False))
    >>> double(rj.parallel.scatter(jnp.ones(4096), None)).sharding.is_fully_replicated
    True
    """
    mesh = Mesh(np.asarray(jax.devices() if devices is None else devices), (AXIS,))

    def one(leaf):
        if parts:
            return constrain(leaf, None, mesh)
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec()))

    return jax.tree.map(one, tree)


@checked(axes=check_axes)
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

    return along(axes, tree, one)


def _part(leaf: Any, axis: int | None, mesh: Mesh) -> NamedSharding:
    """Where a leaf lives: axis 0 means one entry per device; None: in parts if it is large."""
    if axis == 0:
        return NamedSharding(mesh, PartitionSpec(AXIS))
    even = [i for i, length in enumerate(leaf.shape) if length % mesh.size == 0]
    if leaf.size < LEAST or not even:
        return NamedSharding(mesh, PartitionSpec())
    longest = max(even, key=lambda i: leaf.shape[i])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, AXIS))


def joined(leaf: Any, axis: int | None, mesh: Mesh) -> Any:
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


def constrain(leaf: jax.Array, axis: int | None, mesh: Mesh) -> jax.Array:
    """A traced leaf, kept where `scatter` would put it; random keys go where they like."""
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    return jax.lax.with_sharding_constraint(leaf, _part(leaf, axis, mesh))


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
