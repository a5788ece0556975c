"""The metrics of training steps, a row of averages for every so many of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np


class Averages:
    """The rows of metrics.jsonl about training.

    Args:
      every: steps that a row averages over; its last step is a multiple of `every`.
      write: takes the step and the averages of a row.

    >>> averages = Averages(2, print)
    >>> averages.add(0, {"loss": np.array([4.0, 2.0, 1.0])})
    2 {'loss': 3.0}
    >>> averages.flush()
    3 {'loss': 1.0}
    """

    def __init__(self, every: int, write: Callable[[int, dict[str, float]], None]):
        self._every, self._write = every, write
        self._step, self._waiting = 0, []

    def add(self, first: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Take the metrics (n,) of steps first + 1 to first + n, and write the rows that end."""
        begin, count = 0, len(next(iter(metrics.values())))
        while begin < count:
            end = min(count, begin + self._every - (first + begin) % self._every)
            self._waiting.append({name: values[begin:end] for name, values in metrics.items()})
            self._step, begin = first + end, end
            if self._step % self._every == 0:
                self.flush()

    def flush(self) -> None:
        """Write a row of the steps that wait for one."""
        if self._waiting:
            found = {
                name: float(np.concatenate([m[name] for m in self._waiting]).mean(dtype=np.float64))
                for name in self._waiting[0]
            }
            self._waiting = []
            self._write(self._step, found)
