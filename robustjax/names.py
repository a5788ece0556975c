"""Things of one kind by name, those of users too."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from robustjax.checks import checked

T = TypeVar("T")


class Names(dict[str, T], Generic[T]):
    """A dictionary of things of one kind by name; `register` adds a user's own.

    >>> fruits = Names("fruit", {"apple": 1, "pear": 2})
    >>> fruits.register("quince", 3)
    >>> fruits.find("quinze")
    Traceback (most recent call last):
    ValueError: unknown fruit 'quinze'; did you mean quince? known: apple, pear, quince

    Args:
      kind: a word for one of them, used in error messages.
      known: those that come with robustjax.
    """

    @checked
    def __init__(self, kind: str, known: Mapping[str, T]):
        super().__init__(known)
        self.kind, self._owners = kind, dict[str, str]()

    @checked
    def find(self, name: str) -> T:
        """The value of this name.

        Raises:
          ValueError: the name is unknown; the message lists the closest name and all names.
        """
        if name not in self:
            raise ValueError(unknown(self.kind, name, self))
        return self[name]

    @checked
    def register(self, name: str, value: T) -> None:
        """Add `value` under this name.

        The module that registered a name may register it again, so a notebook cell can run twice.

        Raises:
          ValueError: the name belongs to robustjax or another module, or contains anything but
            lower-case letters, digits and dashes.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_+-]*", name):
            raise ValueError(
                f"the name of a {self.kind} consists of lower-case letters, digits and dashes, "
                f"such as my-{self.kind.replace(' ', '-')}, got {name!r}"
            )
        whose = _caller()
        if name in self and (owner := self._owners.get(name, "robustjax")) != whose:
            owner = "robustjax's own" if owner == "robustjax" else f"registered by {owner}"
            raise ValueError(f"the {self.kind} {name!r} is {owner}; choose another name")
        self[name], self._owners[name] = value, whose


def _caller() -> str:
    """The name of the innermost module outside robustjax on the call stack."""
    frame = sys._getframe()
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] == "robustjax":
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))


KINDS: dict[Hashable, Names[Any]] = {}
"""A field's annotated type -> the values that it can hold by name.

`KINDS[Start].register("mine", Mine())` registers a user's own start, and likewise for other types.
"""


def unknown(kind: str, word: str, known: Iterable[str], meant: Sequence[str] = ()) -> str:
    """The message about an unknown word, with the known ones and the one that it may mean.

    >>> from robustjax.names import unknown
    >>> unknown("fruit", "paer", ["apple", "pear"])
    "unknown fruit 'paer'; did you mean pear? known: apple, pear"
    """
    known = tuple(known)
    near = meant or difflib.get_close_matches(word.lower(), known, 1)
    question = f"did you mean {near[0]}? " if near else ""
    return f"unknown {kind} {word!r}; {question}known: {', '.join(known) or 'none'}"
