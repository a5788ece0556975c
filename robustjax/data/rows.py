"""Rows of arrays that are too large for memory and stay on disk."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from robustjax import parallel

SHARE = 1 / 4
"""Of the machine's memory, what the images of a split may take; larger ones stay on disk."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """Some rows of memory-mapped arrays, read from disk when they are indexed.

    It has the shape and dtype of the array that it stands for. An index, a slice or an array of
    indices makes an array of those rows in memory, `np.asarray` one of all of them.

    Args:
      sources: arrays of one dtype, and of one shape except for the number of rows.
      rows: (N,) integers, rows of the sources one after another.

    >>> rows = Rows((np.arange(4), np.arange(10, 14)), np.array([0, 3, 5]))
    >>> rows.shape, rows[1:], np.asarray(rows.take(np.array([2, 0])))
    ((3,), array([ 3, 11]), array([11,  0]))
    """

    sources: tuple[np.ndarray, ...]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        return (len(self.rows), *self.sources[0].shape[1:])

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """That of the sources."""
        return self.sources[0].dtype

    @property
    def nbytes(self) -> int:
        """The bytes that the rows would take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, key: Any) -> np.ndarray:
        rows = self.rows[key]
        found = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        first = 0
        for source in self.sources:
            inside = (rows >= first) & (rows < first + len(source))
            found[inside] = source[rows[inside] - first]
            first += len(source)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def take(self, rows: np.ndarray | slice) -> Rows:
        """These rows of the rows, which stay on disk."""
        return Rows(self.sources, self.rows[rows])


def on_disk(nbytes: int) -> bool:
    """Whether images of this size stay on disk: they take over a quarter of the memory."""
    return nbytes > SHARE * parallel.machine_memory()


def select(array: np.ndarray | Rows, rows: np.ndarray | slice) -> np.ndarray | Rows:
    """Rows of an array; those of one on disk stay there if they are too large for memory."""
    if isinstance(array, np.memmap) and not isinstance(rows, slice):
        array = Rows((array,), np.arange(len(array)))
    return _small_in_memory(array.take(rows)) if isinstance(array, Rows) else array[rows]


def join(a: np.ndarray | Rows, b: np.ndarray | Rows) -> np.ndarray | Rows:
    """The rows of `a`, then those of `b`; they stay on disk if they are too large for memory."""
    first, second = (x if isinstance(x, Rows) else Rows((x,), np.arange(len(x))) for x in (a, b))
    after = sum(map(len, first.sources))
    rows = np.concatenate([first.rows, after + second.rows])
    return _small_in_memory(Rows((*first.sources, *second.sources), rows))


def _small_in_memory(rows: Rows) -> np.ndarray | Rows:
    return rows if on_disk(rows.nbytes) else rows[:]
