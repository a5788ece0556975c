"""The config is the object: frozen dataclasses that JAX traces, JSON holds and people read.

Attacks, threats, methods and schedules are declared with `@config`. Every field is a leaf of a
pytree (so three eps compile once, and a schedule may replace a float by a traced one) unless it is
declared `static(...)` (functions, names, flags: what changes the program).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, TypeVar, dataclass_transform, get_args

import jax
import numpy as np

T = TypeVar("T")
_CLASSES: dict[str, type] = {}


def static(default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that is part of the program, not of the data: it must be hashable."""
    return dataclasses.field(default=default, metadata={"static": True})


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass, a pytree, and known by its name to `decode`.

    Its fields of type int take no float. `__post_init__` also runs when JAX rebuilds the object
    around tracers, so checks belong in `check_number`, which looks at single numbers only.
    """
    checks = getattr(cls, "__post_init__", lambda self: None)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and isinstance(value, float):
                raise ValueError(f"{field.name} must be a whole number such as 10, got {value!r}")
        checks(self)

    cls.__post_init__ = __post_init__
    cls = dataclasses.dataclass(frozen=True)(cls)
    _register(cls)
    if cls.__name__ in _CLASSES:
        raise TypeError(f"there is a config named {cls.__name__} already; choose another name")
    _CLASSES[cls.__name__] = cls
    return cls


def _register(cls: type) -> None:
    """Make a pytree of `cls`.

    Not by `jax.tree_util.register_dataclass`: in JAX 0.10 two treedefs of dataclasses compare equal
    whatever their classes, so PGD(Linf(0.1)) and PGD(L2(0.1)) could share a compiled program.
    """
    fields = dataclasses.fields(cls)
    data = tuple(f.name for f in fields if not f.metadata.get("static"))
    program = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten(node):
        return [getattr(node, name) for name in data], tuple(getattr(node, n) for n in program)

    def flatten_with_keys(node):
        children, aux = flatten(node)
        return [(jax.tree_util.GetAttrKey(n), c) for n, c in zip(data, children, strict=True)], aux

    def unflatten(aux, children):
        return cls(**dict(zip(program + data, (*aux, *children), strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


def number(text: str | float) -> float:
    """Read a number written as a decimal or as a fraction: '8/255' -> 0.0313...

    Raises:
      ValueError: `text` is neither.
    """
    try:
        return float(Fraction(text.strip())) if isinstance(text, str) else float(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{text!r} is not a number; write 0.03 or 8/255") from error


def write_number(value: float) -> str:
    """The inverse of `number`: the shorter of the exact decimal and a fraction of small numbers.

    0.1 -> '0.1', 0.0313... -> '8/255'; what has neither in six digits keeps all of its own.
    """
    if float(text := f"{value:g}") == value:
        return text
    fraction = Fraction(value).limit_denominator(1000)
    return str(fraction) if float(fraction) == value else repr(float(value))


def check_number(name: str, value: Any, low: float = 0.0, high: float = float("inf")) -> None:
    """Raise ValueError unless a number of Python or NumPy lies in [low, high]; arrays pass."""
    if isinstance(value, str):
        raise ValueError(f"{name} must be a number, such as 8 / 255, not the text {value!r}")
    if isinstance(value, int | float | np.number) and not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise ValueError unless `value` is one of a `Literal`'s."""
    if value not in get_args(choices):
        known = ", ".join(get_args(choices))
        raise ValueError(f"{name} must be one of {known}, got {value!r}")


def encode(value: Any) -> Any:
    """Configs -> JSON: {"type": class name, "fields": {...}}; a function becomes its name.

    Any other dataclass is written like a config, which `decode` does not know, and of arrays of
    more than a few numbers the type and the shape.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, "fields": fields}
    if isinstance(value, tuple | list):
        return [encode(v) for v in value]
    if isinstance(value, Mapping):
        return {k: encode(v) for k, v in value.items()}
    if callable(value):
        return _name(value)
    if isinstance(value, np.ndarray | jax.Array) and value.size > 16:
        return f"{value.dtype}{list(value.shape)}"
    return value


def _name(function: Callable) -> str:
    """Of a function; of an object that can be called, what tells that it is no plain function."""
    if isinstance(function, functools.partial):
        return f"partial({_name(function.func)})"
    return getattr(function, "__name__", f"{type(function).__name__}()")


def decode(data: Any, functions: Mapping[str, Callable]) -> Any:
    """Rebuild what `encode` wrote; `functions` resolves the fields that hold a function.

    Raises:
      ValueError: an unknown type, field or function name.
    """
    if isinstance(data, list):
        return tuple(decode(v, functions) for v in data)
    if not isinstance(data, Mapping):
        return data
    if set(data) != {"type", "fields"}:
        return {k: decode(v, functions) for k, v in data.items()}
    if data["type"] not in _CLASSES:
        raise ValueError(
            f"unknown config type {data['type']!r}; known: {', '.join(sorted(_CLASSES))}"
        )
    cls, values = _CLASSES[data["type"]], {}
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name, value in data["fields"].items():
        if name not in known:
            raise ValueError(f"{data['type']} has no field {name!r}; fields: {', '.join(known)}")
        values[name] = decode(value, functions)
        if callable(known[name].default) and isinstance(value, str):
            if value not in functions:
                raise ValueError(
                    f"unknown function {value!r}; known: {', '.join(sorted(functions))}"
                )
            values[name] = functions[value]
    return cls(**values)
