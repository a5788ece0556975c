"""Run a function of one example over any number of examples: full tiles, on all devices.

Every tile has one static shape, so the program is compiled once per device set. On the CPU it is
the same shape for any request: kernels round by the shape of what they are given, and so neither
the batch size nor the number of images or devices can change a bit. The last tile is padded with
copies of its first row, and what the padding produced is dropped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from robustjax import parallel
from robustjax.parallel import Device, data_parallel, merge, place, split

CPU_TILE = 16
"""The examples of every tile of a CPU device: more are no faster there, and fewer stay idle."""

LARGEST_TILE = 256
"""The most examples of a tile of an accelerator, which is busy with them."""


def over_tiles(function: Callable, shared: tuple, rows: Any, batch_size: int | None) -> Any:
    """`function(*shared, row)` for every row.

    Args:
      function: a module-level function of one example. The compiled program is cached under its
        identity and the structure and shapes of its arguments.
      shared: pytrees that all examples see (attack, model, key): data, not program.
      rows: NumPy arrays with a leading axis N.
      batch_size: see `tile_size`.

    Returns:
      NumPy arrays with a leading axis N. Every process of a run computes its share of them, and
      returns them all.
    """
    count = len(jax.tree.leaves(rows)[0])
    found = _on_this_process(function, shared, parallel.share(rows), batch_size)
    return parallel.join(found, count)


def _on_this_process(function, shared, rows, batch_size):
    devices = tuple(jax.local_devices())
    run, shared = _compiled(function, devices), place(jax.tree.map(single, shared), None)
    count = len(jax.tree.leaves(rows)[0])
    tile = len(devices) * tile_size(batch_size, count)
    outputs = []
    for start in range(0, count, tile):
        part = jax.tree.map(lambda a: a[start : start + tile], rows)  # noqa: B023
        padded = jax.tree.map(lambda a: _pad(a, tile), part)
        outputs.append(merge(jax.device_get(run(shared, split(padded, len(devices))))))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *outputs)


def tile_size(batch_size: int | None, count: int) -> int:
    """The examples of a tile on each device.

    On the CPU always `CPU_TILE`. Elsewhere `LARGEST_TILE`, or fewer if the batch size is smaller
    or `count` examples need no more; then a power of two, so that there are few programs.

    Args:
      batch_size: the most examples at once, all devices together; None: no limit.
      count: the number of examples.
    """
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return CPU_TILE
    most = min(LARGEST_TILE, max((batch_size or LARGEST_TILE * len(devices)) // len(devices), 2))
    needed = 1 << (-(-count // len(devices)) - 1).bit_length()
    return min(most, max(needed, 2))  # a product with one row rounds in another order


def single(number: Any) -> Any:
    """A config's number in 32 bits also where JAX's own default is 64."""
    if isinstance(number, float) or getattr(number, "dtype", None) == np.float64:
        return np.asarray(number, np.float32)[()]
    return np.int32(number) if type(number) is int else number


@functools.cache
def _compiled(function: Callable, devices: tuple[Device, ...]) -> Callable:
    def tile(shared, rows):
        return jax.vmap(lambda row: function(*shared, row), axis_name="example")(rows)

    return data_parallel(tile, in_axes=(None, 0), out_axes=0, devices=devices)


def _pad(a: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([a, np.repeat(a[:1], size - len(a), axis=0)])
