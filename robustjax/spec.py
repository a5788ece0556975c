"""The language of names and settings: a config as text, on the command line and in Python.

    text   =  name { ":" path "=" value }        pgd:steps=40:start=gaussian:start.sigma=1/100
    path   =  field { "." field }                a dot leads into a field that is a config itself
    value  =  number | true | false | none | word | value { "," value }

A number is a decimal or a fraction. A word is one of the field's choices, or a name from `KINDS`,
which lists the losses, starts, step rules and so on. Fields that are not given keep the values of
the named config.

>>> from robustjax.attacks.starts import Gaussian, Zero
>>> from robustjax.names import Names
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
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

from robustjax.checks import checked, hint, shown
from robustjax.config import format_number, parse_number
from robustjax.names import KINDS, Names, unknown

T = TypeVar("T")
Settings = list[tuple[str, str]]
"""(path, value), in the order they are written."""
SWITCHES = {"true": True, "false": False, "1": True, "0": False}


@checked
def split(text: str) -> tuple[str, Settings]:
    """'name:path=value:path=value' -> the name and the settings.

    Raises:
      ValueError: a setting without a path or an equals sign.

    >>> split("gaussian:sigma=1/100")
    ('gaussian', [('sigma', '1/100')])
    """
    name, *words = text.strip().split(":")
    settings = []
    for word in words:
        path, equals, value = word.partition("=")
        if not path or not equals:
            raise ValueError(f"{word!r} in {text!r} is not a setting of the form field=value")
        settings.append((path, value))
    return name, settings


@checked
def parse(text: str, names: Names[T]) -> T:
    """The config that a text describes.

    Args:
      text: 'name' or 'name:field=value:...'.
      names: the known names, such as `KINDS[Start]` or `training.SCHEDULES`.

    Raises:
      ValueError: an unknown name or field, or a value that the field cannot hold.

    Guarantees:
      `parse(write(config, names), names)` equals the config.

    >>> parse("one-cycle:peak=0.4", rj.training.SCHEDULES)
    OneCycle(peak=0.4)
    """
    name, settings = split(text)
    return change(names.find(name), settings, name)


@checked
def change(config: Any, settings: Settings, name: str) -> Any:
    """A copy of a config with these settings, applied together since they may depend on each other.

    Args:
      config: a dataclass; anything else has no fields.
      settings: as returned by `split`.
      name: the config's name in error messages.

    Raises:
      ValueError: as for `parse`.

    >>> change(rj.attacks.starts.Gaussian(), [("sigma", "1/100")], "gaussian")
    Gaussian(sigma=0.01)
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
            raise ValueError(f"{name}: {field} is given twice")
        else:
            changes[field] = fields[field].read(value, f"{field} of {name}")
    for field, deeper in inside.items():
        inner = changes.get(field, fields[field].value)
        changes[field] = change(inner, deeper, f"{name}.{field}")
    return dataclasses.replace(config, **changes) if changes else config


@checked
def write(config: Any, names: Mapping[str, Any]) -> str:
    """The inverse of `parse`, starting from the name that needs the fewest settings.

    Raises:
      ValueError: the config, or a part of it such as a user's function, has no name.

    >>> write(rj.training.schedules.OneCycle(0.4), rj.training.SCHEDULES)
    'one-cycle:peak=0.4'
    """
    texts = []
    for name, known in names.items():
        if known is config:
            return name
        if type(known) is type(config) and dataclasses.is_dataclass(known):
            settings = _differences(config, known)
            texts.append([name, *(f"{path}={value}" for path, value in settings)])
    if not texts:
        raise ValueError(f"config must be made of named parts; {shown(config)} has no name")
    return ":".join(min(texts, key=len))


def _differences(config: Any, base: Any, path: str = "") -> Settings:
    """The settings that turn `base` into `config`, a config of the same type.

    Raises:
      ValueError: as for `write`.
    """
    found = []
    for name, field in _fields(config).items():
        old, new = getattr(base, name), field.value
        if type(old) is type(new) and dataclasses.is_dataclass(new):
            found += _differences(new, old, f"{path}{name}.")
        elif not (new is old or np.all(new == old)):
            word, settings = split(field.write())
            found.append((path + name, word))
            found += [(f"{path}{name}.{inner}", value) for inner, value in settings]
    return found


@checked
def settings_of(config: Any, path: str = "") -> Settings:
    """All settings that a text can change, with their current values; none of what is no config.

    >>> from robustjax.attacks.stops import Misclassified
    >>> settings_of(Misclassified())
    [('tau', '0'), ('later', '')]
    """
    found = []
    for name, field in _fields(config).items():
        if field.settable and (
            field.names is not None or not dataclasses.is_dataclass(field.value)
        ):
            with contextlib.suppress(ValueError):  # a user's object without a name
                found.append((path + name, split(field.write())[0]))
        if dataclasses.is_dataclass(field.value):
            found += settings_of(field.value, f"{path}{name}.")
    return found


@dataclasses.dataclass(frozen=True)
class _Field:
    """A field of a config: its value and the values that it can hold.

    Attributes:
      value: the current value.
      types: the types of a single value, or of a tuple's elements.
      one, many: whether the field can hold a single value, and a tuple.
      names: the values that it can hold by name, if there are any.
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
        """The words of a `Literal` type."""
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
            raise ValueError(f"{where} is a config: set its fields instead of {text!r}")
        try:
            number = parse_number(text)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return int(number) if int in self.types and number.is_integer() else number

    def write(self) -> str:
        """The inverse of `read`; a name is followed by its settings.

        Raises:
          ValueError: the value cannot be written.
        """
        if not isinstance(self.value, tuple):
            return self._write_one(self.value)
        words = [self._write_one(value) for value in self.value]
        if self.names is not None and any(":" in word for word in words):
            raise ValueError(f"{self.value!r} has settings, and a list can only hold names")
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
    """The fields of a config; none for anything else."""
    if not dataclasses.is_dataclass(config):
        return {}
    return {
        field.name: _describe(hint(type(config), field), getattr(config, field.name))
        for field in dataclasses.fields(config)
    }


def _describe(kind: Any, value: Any) -> _Field:
    """A field described by its type or, if that is unknown, by its value."""
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
    """The members of a union; any other type alone."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
