"""The language of names and settings: a config as text, on the command line and in Python.

    text   =  name { ":" path "=" value }        pgd:steps=40:start=gaussian:start.sigma=1/100
    path   =  field { "." field }                a dot leads into a field that is a config itself
    value  =  number | true | false | none | word | value { "," value }

A number is a decimal or a fraction. A word is one of the field's choices, or the name of what the
field holds: `KINDS` lists the names of losses, starts, step rules and so on. Fields that are not
given keep the values of the config that the name stands for.

>>> from robustjax.attacks.starts import Gaussian, Zero
>>> starts = Names("start", {"zero": Zero(), "gaussian": Gaussian()})
>>> parse("gaussian:sigma=1/100", starts)
Gaussian(sigma=0.01)
>>> write(Gaussian(0.01), starts)
'gaussian:sigma=0.01'
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import difflib
import re
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

from robustjax.config import format_number, hint, parse_number

T = TypeVar("T")
Settings = list[tuple[str, str]]
"""(path, value), in the order they are written."""
SWITCHES = {"true": True, "false": False, "1": True, "0": False}


class Names(dict[str, T], Generic[T]):
    """What there is of one kind, by name; `register` adds a user's own.

    >>> fruits = Names("fruit", {"apple": 1, "pear": 2})
    >>> fruits.register("quince", 3)
    >>> fruits.find("quinze")
    Traceback (most recent call last):
    ValueError: unknown fruit 'quinze'; did you mean quince? known: apple, pear, quince

    Args:
      kind: what an error calls one of them.
      known: those that robustjax brings.
    """

    def __init__(self, kind: str, known: Mapping[str, T]):
        super().__init__(known)
        self.kind, self._owners = kind, dict[str, str]()

    def find(self, name: str) -> T:
        """What has this name.

        Raises:
          ValueError: nothing has; the message has the nearest name, and all of them.
        """
        if name not in self:
            raise ValueError(unknown(self.kind, name, self))
        return self[name]

    def register(self, name: str, value: T) -> None:
        """Make `value` known by this name.

        The module that has registered it may do so again, as a notebook's cell does.

        Raises:
          ValueError: the name is robustjax's own or another module's, or it could not be written in
            a text.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_+-]*", name):
            raise ValueError(
                f"the name of a {self.kind} is made of lower-case letters, digits and dashes, such "
                f"as my-{self.kind.replace(' ', '-')}, got {name!r}"
            )
        whose = caller()
        if name in self and (owner := self._owners.get(name, "robustjax")) != whose:
            owner = "robustjax's own" if owner == "robustjax" else f"registered by {owner}"
            raise ValueError(f"the {self.kind} {name!r} is {owner}; choose another name")
        self[name], self._owners[name] = value, whose


def caller() -> str:
    """The name of the nearest module outside robustjax that this was called from."""
    frame = sys._getframe()
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] == "robustjax":
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))


KINDS: dict[Hashable, Names[Any]] = {}
"""The type of a field, as it is annotated -> what it may hold, by name.

`KINDS[Start].register("mine", Mine())` makes a user's own start known, and so for the others.
"""


def unknown(kind: str, word: str, known: Iterable[str], meant: Sequence[str] = ()) -> str:
    """The message about a word that is not among the known ones, though it may mean one."""
    known = tuple(known)
    near = meant or difflib.get_close_matches(word.lower(), known, 1)
    question = f"did you mean {near[0]}? " if near else ""
    return f"unknown {kind} {word!r}; {question}known: {', '.join(known) or 'none'}"


def split(text: str) -> tuple[str, Settings]:
    """'name:path=value:path=value' -> the name and the settings.

    Raises:
      ValueError: a setting without a path or a value.
    """
    name, *words = text.strip().split(":")
    settings = []
    for word in words:
        path, equals, value = word.partition("=")
        if not path or not equals:
            raise ValueError(f"{text!r} has {word!r} where a setting should be: field=value")
        settings.append((path, value))
    return name, settings


def parse(text: str, names: Names[T]) -> T:
    """The config of this name with these settings.

    Raises:
      ValueError: an unknown name or field, a value that the field cannot hold.

    Guarantees:
      `parse(write(config, names), names)` equals the config.
    """
    name, settings = split(text)
    return change(names.find(name), settings, name)


def change(config: Any, settings: Settings, name: str) -> Any:
    """The config with these settings, all made at once: they may depend on each other.

    Args:
      config: a dataclass; anything else has no fields.
      settings: from `split`.
      name: what an error calls the config.

    Raises:
      ValueError: as for `parse`.
    """
    fields = {n: field for n, field in _fields(config).items() if field.settable}
    changes: dict[str, Any] = {}
    inside: dict[str, Settings] = collections.defaultdict(list)
    for path, value in settings:
        field, _, rest = path.partition(".")
        if field not in fields:
            owners = [f"{n}.{field}" for n, f in fields.items() if field in _fields(f.value)]
            raise ValueError(unknown(f"field of {name}:", field, fields, owners))
        if rest:
            inside[field].append((rest, value))
        elif field in changes:
            raise ValueError(f"{name} is given {field} twice")
        else:
            changes[field] = fields[field].read(value, f"{field} of {name}")
    for field, deeper in inside.items():
        inner = changes.get(field, fields[field].value)
        changes[field] = change(inner, deeper, f"{name}.{field}")
    return dataclasses.replace(config, **changes) if changes else config


def write(config: Any, names: Mapping[str, Any]) -> str:
    """The inverse of `parse`: by the name that leaves the least to be said.

    Raises:
      ValueError: it has a part without a name, such as a user's function.
    """
    texts = []
    for name, known in names.items():
        if known is config:
            return name
        if type(known) is type(config) and dataclasses.is_dataclass(known):
            settings = differences(config, known)
            texts.append([name, *(f"{path}={value}" for path, value in settings)])
    if not texts:
        raise ValueError(f"{config!r} has no name")
    return ":".join(min(texts, key=len))


def differences(config: Any, base: Any, path: str = "") -> Settings:
    """The settings that make `config` of `base`, a config of the same type.

    Raises:
      ValueError: as for `write`.
    """
    found = []
    for name, field in _fields(config).items():
        old, new = getattr(base, name), field.value
        if type(old) is type(new) and dataclasses.is_dataclass(new):
            found += differences(new, old, f"{path}{name}.")
        elif not (new is old or np.all(new == old)):
            word, settings = split(field.write())
            found.append((path + name, word))
            found += [(f"{path}{name}.{inner}", value) for inner, value in settings]
    return found


def settings_of(config: Any, path: str = "") -> Settings:
    """All settings that a text may change, with their present values.

    >>> from robustjax.attacks.stops import Misclassified
    >>> settings_of(Misclassified())
    [('tau', '0'), ('later', '')]
    """
    found = []
    for name, field in _fields(config).items():
        if field.settable and (
            field.names is not None or not dataclasses.is_dataclass(field.value)
        ):
            with contextlib.suppress(ValueError):  # a user's own: it can be replaced, not written
                found.append((path + name, split(field.write())[0]))
        if dataclasses.is_dataclass(field.value):
            found += settings_of(field.value, f"{path}{name}.")
    return found


@dataclasses.dataclass(frozen=True)
class _Field:
    """A field, what it holds, and what it may hold.

    Attributes:
      value: of one config.
      types: of a value that is not a tuple, or of a tuple's elements.
      one, many: whether it may hold a single value, and a tuple.
      names: what it may hold by name.
    """

    value: Any
    types: frozenset[Any]
    one: bool
    many: bool
    names: Names[Any] | None

    @property
    def settable(self) -> bool:
        """Whether a text can change it."""
        plain = {bool, int, float, str} & self.types or self.choices
        return bool(plain or self.names is not None or dataclasses.is_dataclass(self.value))

    @property
    def choices(self) -> tuple[str, ...]:
        """Those of a `Literal`."""
        return tuple(
            word for kind in self.types if get_origin(kind) is Literal for word in get_args(kind)
        )

    def read(self, text: str, where: str) -> Any:
        """The value that a text stands for."""
        if text == "none" and NoneType in self.types:
            return None
        if self.many and ("," in text or not self.one):
            return tuple(self._read_one(word, where) for word in text.split(",")) if text else ()
        return self._read_one(text, where)

    def _read_one(self, text: str, where: str) -> Any:
        if self.names is not None:
            return self.names.find(text)
        if self.choices:
            if text not in self.choices:
                raise ValueError(unknown(f"{where}:", text, self.choices))
            return text
        if bool in self.types:
            if text not in SWITCHES:
                raise ValueError(f"{where} is true or false, not {text!r}")
            return SWITCHES[text]
        if str in self.types:
            return text
        if not {int, float} & self.types:
            raise ValueError(f"{where} is a config: set its own fields, not the whole to {text!r}")
        try:
            number = parse_number(text)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return int(number) if int in self.types and number.is_integer() else number

    def write(self) -> str:
        """The inverse of `read`; settings of what has a name follow it.

        Raises:
          ValueError: there is no such text.
        """
        if not isinstance(self.value, tuple):
            return self._write_one(self.value)
        words = [self._write_one(value) for value in self.value]
        if self.names is not None and any(":" in word for word in words):
            raise ValueError(f"{self.value!r} has settings, which cannot be written in a list")
        return ",".join(words)

    def _write_one(self, value: Any) -> str:
        if value is None:
            return "none"
        if self.names is not None:
            return write(value, self.names)
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            return value
        if not {int, float} & self.types:
            raise ValueError(f"{value!r} has no name")
        return format_number(float(value))


def _fields(config: Any) -> dict[str, _Field]:
    """The fields of a config; none of what is no config."""
    if not dataclasses.is_dataclass(config):
        return {}
    return {
        field.name: _described(hint(type(config), field), getattr(config, field.name))
        for field in dataclasses.fields(config)
    }


def _described(kind: Any, value: Any) -> _Field:
    """What is known of a field from its type, or, where that cannot be found, from its value."""
    if kind is None:
        kind = tuple[type(value[0]), ...] if isinstance(value, tuple) and value else type(value)
    several = [option for option in _options(kind) if get_origin(option) is tuple]
    single = [option for option in _options(kind) if get_origin(option) is not tuple]
    elements = [e for option in several for arg in get_args(option) for e in _options(arg)]
    types = frozenset([*single, *elements]) - {...}
    known = [KINDS[t] for t in (kind, *types) if t in KINDS]
    known += [n for k, n in KINDS.items() if isinstance(k, type) and isinstance(value, k)]
    one = bool(set(single) - {NoneType})
    return _Field(value, types, one, bool(several), known[0] if known else None)


def _options(kind: Any) -> tuple[Any, ...]:
    """The members of a union; of anything else, itself."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
