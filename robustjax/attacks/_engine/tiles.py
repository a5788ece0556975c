"""Run a function of one example over any number of examples: full tiles, on all devices.

Every tile has one static shape, so the program is compiled once per shape and device set; the last
tile is padded with copies of its first row, and what the padding produced is dropped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from robustjax.parallel import Device, data_parallel, merge, split


def over_tiles(
    function: Callable,
    shared: tuple,
    rows: Any,
    batch_size: int,
    progress: str | None = None,
) -> Any:
    """`function(*shared, row)` for every row.

    Args:
      function: a module-level function of one example. The compiled program is cached under its
        identity and the structure and shapes of its arguments.
      shared: pytrees that all examples see (attack, model, key): data, not program.
      rows: NumPy arrays with a leading axis N.
      batch_size: examples per tile, all devices together; rounded up to a multiple of the devices.
        Fewer rows are padded to it, so survivors of a stage run in the same program as all.
      progress: the title of a progress bar; None: no bar.

    Returns:
      NumPy arrays with a leading axis N. In a multi-process run every process computes all of them
      on its own devices.
    """
    devices = tuple(jax.local_devices())
    run = _compiled(function, devices)
    count = len(jax.tree.leaves(rows)[0])
    tile = tile_size(batch_size, len(devices))
    outputs = []
    for start in tqdm(range(0, count, tile), desc=progress, disable=progress is None):
        part = jax.tree.map(lambda a: a[start : start + tile], rows)  # noqa: B023
        padded = jax.tree.map(lambda a: _pad(a, tile), part)
        outputs.append(merge(jax.device_get(run(shared, split(padded, len(devices))))))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *outputs)


def default_batch_size() -> int:
    """32 images a device on the CPU, 256 on accelerators, all devices together.

    Where cores are few a larger tile is no faster, and survivors fill a small one better.
    """
    devices = jax.local_devices()
    return len(devices) * (32 if devices[0].platform == "cpu" else 256)


def tile_size(batch_size: int, devices: int) -> int:
    """`batch_size` rounded up to a multiple of the devices.

    Two examples per device at least: a matrix product with one row rounds in another order.
    """
    return max(-(-batch_size // devices), 2) * devices


@functools.cache
def _compiled(function: Callable, devices: tuple[Device, ...]) -> Callable:
    def tile(shared, rows):
        return jax.vmap(lambda row: function(*shared, row), axis_name="example")(rows)

    return data_parallel(tile, in_axes=(None, 0), out_axes=0, devices=devices)


def _pad(a: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([a, np.repeat(a[:1], size - len(a), axis=0)])
