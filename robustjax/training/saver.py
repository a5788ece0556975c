"""What a run leaves on disk is written by a thread while the run goes on."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")


class Saver:
    """Runs jobs in order in a thread: one runs and one waits, so `put` returns at once.

    Where training is faster than the disk, jobs are left out: a new one takes the place of the one
    that waits, but an optional one does not displace one that is not. Jobs take at most a fifth of
    the thread's time, unless `wait` waits for them. Several processes do their jobs at once, since
    they must meet in the same order.

    Guarantees:
      Jobs run in the order in which they came, never two at a time.
      The error of a job is raised by the next call, or when the block ends without another error.

    >>> with Saver() as saver:
    ...     saver.put(lambda: print("written"))
    written
    """

    def __init__(self):
        self._pool = ThreadPoolExecutor(1, "robustjax-saver")
        self._jobs: collections.deque[tuple[Future, list[Callable[[], None]], bool]]
        self._jobs = collections.deque()
        self._hurry, self._rest = threading.Event(), 0.0

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        self._hurry.set()
        self._pool.shutdown()
        if kind is None:
            self.wait()

    def put(self, job: Callable[[], None], optional: bool = False) -> None:
        """Run a job after the one that runs; what it reads must not change any more."""
        if jax.process_count() > 1:
            job()
            return
        while self._jobs and self._jobs[0][0].done():
            self._jobs.popleft()[0].result()  # without hurry: the next one may be resting
        if len(self._jobs) == 2:
            waiting, box, may_go = self._jobs[1]
            if optional and not may_go:
                return
            if waiting.cancel():
                self._jobs.pop()
                box.clear()  # the pool remembers the call until its thread is free
            else:
                self._first()
        box = [job]
        self._jobs.append((self._pool.submit(self._run, box), box, optional))

    def wait(self) -> None:
        """Return when all jobs are done."""
        while self._jobs:
            self._first()

    def _first(self) -> None:
        self._hurry.set()
        self._jobs.popleft()[0].result()
        self._hurry.clear()

    def _run(self, box: list[Callable[[], None]]) -> None:
        self._hurry.wait(self._rest)
        began = time.monotonic()
        box.pop()()
        self._rest = 4 * (time.monotonic() - began)


@jax.jit
def snapshot(tree: T) -> T:
    """A copy on the devices, which a step that reuses the memory of `tree` leaves alone.

    >>> snapshot({"w": jnp.ones(2)})["w"].tolist()
    [1.0, 1.0]
    """
    return jax.tree.map(jnp.copy, tree)
