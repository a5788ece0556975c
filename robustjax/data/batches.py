"""The examples of each training step: a pure function of the seed and the step."""

from __future__ import annotations

import functools

import numpy as np

from robustjax.checks import INF, checked


@checked(host=True)
def steps_per_epoch(size: int, batch: int) -> int:
    """The number of full batches in an epoch; the remainder is dropped, other examples each epoch.

    Raises:
      ValueError: there is not one full batch.

    >>> rj.data.steps_per_epoch(size=50_000, batch=128)
    390
    """
    if not 1 <= batch <= size:
        raise ValueError(
            f"the batch size must lie in [1, {size}], the number of images, got {batch}"
        )
    return size // batch


@checked(host=True, step=(0, INF))
def batch_indices(seed: int, step: int, size: int, batch: int) -> np.ndarray:
    """The rows of the data set that a step trains on: (batch,) int32.

    Args:
      seed: in [0, 2^32).
      step: counted from 0 over all epochs.
      size: examples in the data set.
      batch: examples in a batch, over all devices and processes.

    Raises:
      ValueError: a number is out of range.

    Guarantees:
      The batches of an epoch are disjoint; together they are a permutation of the data set, except
      for the dropped remainder.
      The same arguments give the same rows, whatever was called before.

    The two steps of an epoch, and the first of the next:

    >>> [rj.data.batch_indices(0, step, size=7, batch=3).tolist() for step in range(3)]
    [[3, 6, 4], [0, 2, 5], [0, 5, 6]]
    """
    if step < 0 or not 0 <= seed < 2**32:
        raise ValueError(
            f"need a step >= 0 and a seed in [0, 2^32), got step {step} and seed {seed}"
        )
    epoch, position = divmod(step, steps_per_epoch(size, batch))
    return _permutation(seed, epoch, size)[position * batch : (position + 1) * batch]


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """One epoch's order. RandomState's stream is frozen (NEP 19), so no release changes a run."""
    order = np.random.RandomState([seed, epoch]).permutation(size).astype(np.int32)
    order.flags.writeable = False
    return order


def draw(seed: int, step: int, size: int, count: int) -> np.ndarray:
    """Rows of a pool, drawn independently with replacement: (count,) int32.

    Guarantees:
      The same arguments give the same rows, and memory does not grow with the pool.
    """
    # The third number separates this stream from the permutations'.
    return np.random.RandomState([seed, step, 1]).randint(size, size=count, dtype=np.int32)


def balanced(seed: int, step: int, of_class: list[np.ndarray], count: int) -> np.ndarray:
    """Rows in which the classes take turns, each drawn from its class: (count,) int32.

    Args:
      seed, step: as for `batch_indices`.
      of_class: the rows of each class.
      count: rows in a batch.

    Guarantees:
      The same arguments give the same rows.
      As many batches as there are classes hold each class equally often.
    """
    random = np.random.RandomState([seed, step, 2])  # 2: a stream of its own
    turns = (np.arange(count) + step * count) % len(of_class)
    sizes = np.array([len(rows) for rows in of_class])
    places = random.randint(sizes[turns])
    found = np.array([of_class[k][i] for k, i in zip(turns, places, strict=True)], np.int32)
    return random.permutation(found)


@checked(host=True, indices="N", process=(0, INF), processes=(1, INF))
def shard(indices: np.ndarray, process: int, processes: int) -> np.ndarray:
    """The block of a batch that this process reads; in order, the blocks make up the batch.

    Raises:
      ValueError: the batch cannot be split evenly over the processes, or there is no such process.

    >>> rj.data.shard(np.array([6, 2, 1, 3]), process=1, processes=2)
    array([1, 3])
    """
    if not 0 <= process < processes:
        raise ValueError(f"there is no process {process} among {processes}")
    if len(indices) % processes:
        raise ValueError(
            f"a batch of {len(indices)} cannot be split evenly over {processes} processes; "
            f"choose a multiple of {processes}"
        )
    size = len(indices) // processes
    return indices[process * size : (process + 1) * size]
