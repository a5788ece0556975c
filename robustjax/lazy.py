"""Modules that are slow to import and seldom needed: they load when they are first used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class Lazy(ModuleType):
    """A module that is imported when an attribute of it is asked for.

    >>> calendar = Lazy("calendar")
    >>> calendar.isleap(2000)
    True
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)
