"""Examples that live on the devices, and the batches that a program takes from them there."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from robustjax import parallel
from robustjax.data.dataset import Dataset
from robustjax.data.plan import Plan
from robustjax.parallel import AXIS

SHARE = 1 / 4
"""Of a device's memory, what examples may take."""

Layout = Literal["replicated", "sharded", "streamed"]
Table = dict[str, jax.Array]


def layout(plan: Plan) -> Layout:
    """Where a run's examples live.

    They are on every device if they take at most a quarter of its memory, spread over all devices
    if their part does, and else stay on the host or on disk, and batches are streamed.
    """
    sources = [plan.train] if plan.extra is None else [plan.train, plan.extra]
    size = sum(array.nbytes for source in sources for array in _arrays(source).values())
    room = SHARE * parallel.device_memory()
    if size <= room:
        return "replicated"
    return "sharded" if size <= room * jax.device_count() else "streamed"


def put(plan: Plan, sharded: bool) -> list[Table]:
    """A run's examples on the devices: the tables of train and, where there are any, of extra."""
    sources = [plan.train] if plan.extra is None else [plan.train, plan.extra]
    if not sharded:
        return [parallel.place(_arrays(source), None) for source in sources]
    return [parallel.place(_shards(_arrays(source)), 0) for source in sources]


def take(tables: list[Table], index: jax.Array, sharded: bool) -> Table:
    """A device's examples: what `Plan.batch` returns, inside a program.

    Args:
      tables: of train and perhaps extra; if `sharded`, this device's rows of them.
      index: (b,) int32, a row of train, or -1 - a row of extra.
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
    return batch | {"index": index}


def _arrays(source: Dataset) -> dict[str, np.ndarray]:
    found = {"image": source.images, "label": source.labels}
    if source.targets is not None:
        found["target"] = source.targets.astype(np.float32, copy=False)
    return found


def _shards(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
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
