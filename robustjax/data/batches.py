"""Which examples a training step sees: a pure function of the seed and the step."""

from __future__ import annotations

import functools

import numpy as np


def steps_per_epoch(size: int, batch: int) -> int:
    """Full batches in an epoch; the ragged rest is dropped (another epoch drops other examples).

    Raises:
      ValueError: there is not one full batch.
    """
    if not 1 <= batch <= size:
        raise ValueError(f"the batch size must lie in [1, {size}], the data set's, got {batch}")
    return size // batch


def batch_indices(seed: int, step: int, size: int, batch: int) -> np.ndarray:
    """Rows of the data set that step `step` trains on: (batch,) int32.

    Args:
      seed: in [0, 2^32).
      step: counted from 0 over all epochs.
      size: examples in the data set.
      batch: examples in a batch, over all devices and processes.

    Raises:
      ValueError: a number is out of range.

    Guarantees:
      The batches of an epoch are disjoint, and together a permutation but for the dropped rest.
      The same arguments give the same rows, whatever was asked before.
    """
    if step < 0 or not 0 <= seed < 2**32:
        raise ValueError(
            f"need a step >= 0 and a seed in [0, 2^32), got step {step} and seed {seed}"
        )
    epoch, position = divmod(step, steps_per_epoch(size, batch))
    return _permutation(seed, epoch, size)[position * batch : (position + 1) * batch]


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """One epoch's order. RandomState's stream is frozen (NEP 19): no release reorders a run."""
    order = np.random.RandomState([seed, epoch]).permutation(size).astype(np.int32)
    order.flags.writeable = False
    return order


def draw(seed: int, step: int, size: int, count: int) -> np.ndarray:
    """Rows of a pool of `size`, drawn independently and with replacement: (count,) int32.

    Guarantees:
      The same arguments give the same rows; no order of the pool is made.
    """
    # The third number keeps this stream apart from the permutations'.
    return np.random.RandomState([seed, step, 1]).randint(size, size=count, dtype=np.int32)


def shard(indices: np.ndarray, process: int, processes: int) -> np.ndarray:
    """The block of a batch that this process reads; the blocks in order are the batch.

    Raises:
      ValueError: the batch does not divide over the processes, or there is no such process.
    """
    if not 0 <= process < processes:
        raise ValueError(f"there is no process {process} among {processes}")
    if len(indices) % processes:
        raise ValueError(
            f"a batch of {len(indices)} does not divide over {processes} processes; "
            f"choose a multiple of {processes}"
        )
    size = len(indices) // processes
    return indices[process * size : (process + 1) * size]
