"""Progress bars: every one is made here, so that one place can hide them all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

_shown = True
_title = ""


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


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """No bars inside.

    >>> with hidden():
    ...     bar("steps", total=3).disable
    True
    """
    global _shown
    before, _shown = _shown, False
    try:
        yield
    finally:
        _shown = before
