"""Imports of modules that are slow to load and seldom needed, or that not everyone has."""

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


def needed(package: str, user: str) -> Any:
    """An optional package, imported now.

    Args:
      package: its name, which is also that of robustjax's extra.
      user: what needs it.

    Raises:
      ModuleNotFoundError: it is not installed; the message says how to install it.

    >>> needed("calendar", "this example").isleap(2000)
    True
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{user} needs {package}: pip install 'robustjax[{package}]'", name=package
        ) from error
