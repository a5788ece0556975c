"""Warnings that point at the caller's line, however deep in the library they arise."""

from __future__ import annotations

import sys
import warnings


def warn(text: str) -> None:
    """Warn at the line outside robustjax from which it was called.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("the attack is blind there")
    >>> str(caught[0].message), caught[0].category.__name__
    ('the attack is blind there', 'UserWarning')
    """
    level = inside = 1
    frame = sys._getframe()
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "robustjax":
            inside = level
        frame, level = frame.f_back, level + 1
    warnings.warn(text, UserWarning, stacklevel=inside + 1)
