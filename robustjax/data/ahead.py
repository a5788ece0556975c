"""What will be needed next is made by other threads while what is there is used."""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


@contextlib.contextmanager
def ahead(
    make: Callable[[T], U], items: Iterable[T], depth: int, threads: int = 1
) -> Iterator[Iterator[U]]:
    """`map(make, items)`, computed up to `depth` items ahead of its reader.

    Args:
      make: called in other threads; what it raises reaches the reader at that item's turn.
      items: taken in the reader's thread, in order.
      depth: results that wait, at most.
      threads: calls of `make` at a time.

    Guarantees:
      The results come in the order of the items, for any number of threads.

    >>> with ahead(lambda n: n * n, range(4), depth=2) as squares:
    ...     list(squares)
    [0, 1, 4, 9]
    """
    items = iter(items)
    with ThreadPoolExecutor(threads, "robustjax-ahead") as pool:
        try:
            waiting = collections.deque(
                pool.submit(make, item) for item in itertools.islice(items, depth)
            )

            def results() -> Iterator[U]:
                while waiting:
                    first = waiting.popleft()
                    waiting.extend(pool.submit(make, item) for item in itertools.islice(items, 1))
                    yield first.result()

            yield results()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
