"""Lazy imports of modules that are slow to load and seldom needed."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class Lazy(ModuleType):
    """A module that is imported when one of its attributes is first read.

    >>> calendar = Lazy("calendar")
    >>> calendar.isleap(2000)
    True
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)
