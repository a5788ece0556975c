"""Examples that live on the devices, and the batches that a program takes from them there.

Images lie flat, so that a TPU, which pads the last two axes of an array, stores nothing but pixels
and reads an image in one piece.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from robustjax import parallel
from robustjax.data.dataset import Dataset
from robustjax.data.plan import Plan
from robustjax.data.rows import Rows
from robustjax.parallel import AXIS

SHARE = 1 / 4
"""Of a device's memory, what examples may take."""

Layout = Literal["replicated", "sharded", "streamed"]
Table = dict[str, jax.Array]
Arrays = dict[str, np.ndarray | Rows]


def layout(plan: Plan, memory: float, devices: int) -> Layout:
    """Where a run's examples live.

    They are on every device if they take at most a quarter of its memory, spread over all devices
    if their part does, and else stay on the host or on disk, and batches are streamed.

    Args:
      plan: the batches of the run.
      memory: bytes of a device.
      devices: the number of all devices.
    """
    size = sum(array.nbytes for source in _sources(plan) for array in source.values())
    if size <= SHARE * memory:
        return "replicated"
    return "sharded" if size <= SHARE * memory * devices else "streamed"


def put(plan: Plan, sharded: bool) -> list[Table]:
    """A run's examples on the devices: the tables of train and, where there are any, of extra."""
    read = _shards if sharded else _whole
    tables = [read(source) for source in _sources(plan)]
    for table in tables:
        table["image"] = table["image"].reshape(*table["image"].shape[:-3], -1)
    return [parallel.place(table, 0 if sharded else None) for table in tables]


def shapes(plan: Plan, sharded: bool, devices: int) -> list[Any]:
    """The shapes of what `put` would put on so many devices of one process."""

    def one(name, array):
        rows = (devices, -(-len(array) // devices)) if sharded else (len(array),)
        entries = (math.prod(array.shape[1:]),) if name == "image" else array.shape[1:]
        return jax.ShapeDtypeStruct((*rows, *entries), array.dtype)

    sources = _sources(plan)
    return [{name: one(name, array) for name, array in source.items()} for source in sources]


def take(
    tables: list[Table], index: jax.Array, image_shape: tuple[int, int, int], sharded: bool
) -> Table:
    """A device's examples: what `Plan.batch` returns, inside a program.

    Args:
      tables: of train and perhaps extra; if `sharded`, this device's rows of them.
      index: (b,) int32, a row of train, or -1 - a row of extra.
      image_shape: (H, W, C).
      sharded: whether the rows are spread over the devices, which must all be in this call.
    """
    batch = _rows(tables[0], index, sharded)
    soft = any("target" in table for table in tables)
    if soft and "target" not in tables[0]:
        batch["target"] = _one_hot(batch["label"], tables[1]["target"])
    if len(tables) > 1:
        extra = _rows(tables[1], -1 - index, sharded)
        if soft and "target" not in extra:
            extra["target"] = _one_hot(extra["label"], tables[0]["target"])
        batch = {name: _where(index < 0, extra[name], batch[name]) for name in batch}
    return batch | {"image": batch["image"].reshape(-1, *image_shape), "index": index}


def _sources(plan: Plan) -> list[Arrays]:
    return [_arrays(source) for source in (plan.train, plan.extra) if source is not None]


def _arrays(source: Dataset) -> Arrays:
    found: Arrays = {"image": source.images, "label": source.labels}
    if source.targets is not None:
        found["target"] = source.targets.astype(np.float32, copy=False)
    return found


def _whole(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in arrays.items()}


def _shards(arrays: Arrays) -> dict[str, np.ndarray]:
    """This process's rows (devices, n, ...); the last device's end with copies of the last row."""
    count, devices = len(arrays["label"]), jax.local_device_count()
    each = -(-count // jax.device_count())
    first = jax.process_index() * devices * each
    rows = np.minimum(first + np.arange(devices * each), count - 1)
    return parallel.split({name: array[rows] for name, array in arrays.items()}, devices)


def _rows(table: Table, index: jax.Array, sharded: bool) -> Table:
    """The rows of a table; a row that is not there is any other."""
    if not sharded:
        return {name: array[index] for name, array in table.items()}
    size = len(table["label"])
    own = lax.all_gather(index, AXIS, tiled=True) - lax.axis_index(AXIS) * size
    here = (own >= 0) & (own < size)

    def one(array):  # every other device adds zeros
        found = _where(here, array[jnp.clip(own, 0, size - 1)], jnp.zeros((), array.dtype))
        return lax.psum_scatter(found, AXIS, tiled=True)

    return {name: one(array) for name, array in table.items()}


def _where(chosen: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(chosen.reshape(-1, *(1 for _ in a.shape[1:])), a, b)


def _one_hot(label: jax.Array, like: Any) -> jax.Array:
    return jax.nn.one_hot(label, like.shape[-1], dtype=jnp.float32)
