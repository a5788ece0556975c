"""Progress: every bar is made here, so that one place can hide them all, and hear what is done."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from tqdm import tqdm


class Work(NamedTuple):
    """An attack on some images that is finished.

    Attributes:
      title: of its bar.
      images: how many.
      passes: through the model that all images took together; a gradient counts for two more.
      seconds: with compilations.
    """

    title: str
    images: int
    passes: float
    seconds: float


_shown = True
_told = True
_title = ""
_listeners: list[Callable[[Work], None]] = []


def bar(
    title: str, rows: Iterable | None = None, *, disable: bool | None = False, **settings: Any
) -> tqdm:
    """A tqdm bar, which nobody sees inside `hidden`.

    Args:
      title: what is done; `doing` returns it until the next bar starts.
      rows: what the bar counts; None: calls of `update`.
      disable, settings: of tqdm.

    >>> list(bar("squares", [1, 4, 9], disable=True)), doing()
    ([1, 4, 9], 'squares')
    """
    global _title
    _title = title
    return tqdm(rows, title, disable=disable if _shown else True, **settings)


def doing() -> str:
    """The title of the last bar, shown or not; empty before the first one."""
    return _title


def announce(work: Work) -> None:
    """Hand a finished attack to those that listen: see `heard`.

    >>> announce(Work("pgd-20", images=100, passes=6e3, seconds=2.0))  # nobody listens
    """
    for listener in _listeners:
        listener(work)


@contextlib.contextmanager
def heard(listener: Callable[[Work], None]) -> Iterator[None]:
    """Call `listener` with every attack that is finished inside.

    >>> with heard(print):
    ...     announce(Work("pgd-20", images=100, passes=6e3, seconds=2.0))
    Work(title='pgd-20', images=100, passes=6000.0, seconds=2.0)
    """
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def is_told() -> bool:
    """Whether `tell` prints, for those who would work for a line.

    >>> with hidden(lines=True):
    ...     is_told()
    False
    """
    return _told


def tell(line: str) -> None:
    """Print a line on stderr, above the bars, unless lines are hidden.

    >>> with hidden(lines=True):
    ...     tell("at most about 3 min for all attacks")
    """
    if _told:
        tqdm.write(line, sys.stderr)


@contextlib.contextmanager
def hidden(lines: bool = False) -> Iterator[None]:
    """No bars inside; with `lines` nothing that is told either.

    >>> with hidden():
    ...     bar("steps", total=3).disable
    True
    """
    global _shown, _told
    before = _shown, _told
    _shown, _told = False, _told and not lines
    try:
        yield
    finally:
        _shown, _told = before
