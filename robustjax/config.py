"""The config is the object: a frozen dataclass that JAX traces, JSON stores and people read.

Attacks, threats, methods and schedules are declared with `@config`. Every field is a leaf of a
pytree, so three eps compile once, and a schedule may replace a float by a traced one; except fields
declared `static(...)`: functions, names and flags, which change the program. `number(...)` declares
the range of a number.
"""

from __future__ import annotations

import abc
import base64
import dataclasses
import functools
import inspect
import math
import re
import sys
import types
import zlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin

import jax
import numpy as np
from jax.core import Tracer

T = TypeVar("T")
Rewrite = Callable[[Mapping[str, Any], dict[str, Any]], dict[str, Any]]
_CLASSES: dict[str, type] = {}
_REWRITES: list[Rewrite] = []
_LARGEST = 2**31 - 1
"""The largest int of JAX, which computes in 32 bits."""


def static(*, default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that is part of the program, not of the data: it must be hashable.

    >>> @rj.config.config
    ... class Smoothed:
    ...     noise: float = 0.1
    ...     samples: int = rj.config.static(default=8)
    >>> jax.tree.leaves(Smoothed())  # another noise runs the same program, other samples compile
    [0.1]
    """
    return dataclasses.field(default=default, metadata={"static": True})


def number(
    *,
    default: Any = dataclasses.MISSING,
    low: float = 0.0,
    high: float = float("inf"),
    static: bool = False,
) -> Any:
    """Declare a field that holds a number in [low, high], or a tuple of such; None passes.

    >>> @rj.config.config
    ... class Descent:
    ...     steps: int = rj.config.number(default=10, low=1)
    >>> Descent(steps=0)
    Traceback (most recent call last):
    ValueError: steps must lie in [1, inf], got 0
    """
    metadata = {"range": (low, high), "static": static}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True, field_specifiers=(static, number, dataclasses.field))
def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and a pytree that `decode` finds by its name.

    Fields are checked by their types: an int rejects floats, a `Literal` all but its choices, a
    function whatever cannot be called, and `number(...)` a number out of its range. A field of a
    config's type, an abstract class or a runtime protocol rejects text, floats, classes and other
    configs. JAX rebuilds the object around tracers and objects of its own, which pass every check;
    your `__post_init__` must let them pass, too.

    A class that is defined again, as when a notebook cell is rerun, replaces the earlier one.

    Raises:
      TypeError: another class of robustjax has this name.

    >>> @rj.config.config
    ... class Twice:
    ...     factor: float = 2.0
    ...     def __call__(self, x):
    ...         return self.factor * x
    >>> jax.jit(lambda f, x: f(x))(Twice(3.0), 5).item()  # an argument of a compiled program
    15.0
    """
    own = cls.__dict__.get("__post_init__") or getattr(cls, "__post_init__", lambda self: None)

    def __post_init__(self):
        if type(self) is cls:  # once, not again when a subclass calls super()
            for check in _checks(cls):
                check(self)
        own(self)

    declared: Any = cls
    declared.__post_init__ = __post_init__
    cls = dataclasses.dataclass(frozen=True)(cls)
    cls.__eq__ = _equal
    _register(cls)
    name = type_name(cls)
    known = _CLASSES.get(name)
    if known and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TypeError(f"a config named {name} already exists; choose another name")
    _CLASSES[name] = cls
    return cls


def type_name(cls: type) -> str:
    """The name of a config class in JSON, with its module unless that is robustjax.

    >>> rj.config.type_name(rj.threats.Linf)
    'Linf'
    """
    ours = cls.__module__.partition(".")[0] == "robustjax"
    return cls.__name__ if ours else f"{cls.__module__}.{cls.__qualname__}"


def _equal(self: Any, other: Any) -> bool:
    """Whether both are of one class with equal fields; arrays are compared entry by entry."""
    if type(self) is not type(other):
        return NotImplemented
    pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
    return all(_same(a, b) for a, b in pairs)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray | jax.Array) or isinstance(b, np.ndarray | jax.Array):
        return np.array_equal(a, b)
    return a is b or a == b


@functools.cache
def _checks(cls: type) -> tuple[Callable[[Any], None], ...]:
    """The checks that the types and ranges of a config's fields imply."""
    checks = []
    for field in dataclasses.fields(cls):
        kind, limits = hint(cls, field), field.metadata.get("range")
        if kind is int or (int in get_args(kind) and float not in get_args(kind)):
            checks.append(functools.partial(_check_count, field.name))
        if get_origin(kind) is Literal:
            checks.append(functools.partial(_check_literal, field.name, kind))
        if get_origin(kind) is Callable and field.metadata.get("static"):
            checks.append(functools.partial(_check_function, field.name))
        if asked := _class_of(kind):
            checks.append(functools.partial(_check_class, field.name, asked))
        if limits is not None:
            checks.append(functools.partial(_check_range, field.name, limits))
    return tuple(checks)


def hint(cls: type, field: dataclasses.Field) -> Any:
    """A field's type, even if annotations are postponed; None if it cannot be resolved.

    >>> @rj.config.config
    ... class Power:
    ...     exponent: int = 2
    >>> rj.config.hint(Power, dataclasses.fields(Power)[0])
    <class 'int'>
    """
    if not isinstance(field.type, str):
        return field.type
    owner = next(c for c in cls.__mro__ if field.name in inspect.get_annotations(c))
    scope = vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {}
    try:
        return eval(field.type, dict(scope))
    except NameError:  # a local name, or one imported for type checkers only
        return None


def _class_of(hint: Any) -> type | None:
    """The class that a field's type names, None set aside, if no other object can stand in.

    Of a union nothing is asked: it may list what we have, and a user's class is as good.
    """
    union = get_origin(hint) in (Union, types.UnionType)
    kind, *others = [k for k in (get_args(hint) if union else (hint,)) if k is not type(None)]
    if others or not isinstance(kind, type) or issubclass(kind, jax.Array):
        return None
    if getattr(kind, "_is_protocol", False):
        return kind if getattr(kind, "_is_runtime_protocol", False) else None
    return kind if isinstance(kind, abc.ABCMeta) or kind in _CLASSES.values() else None


def _check_class(name: str, kind: type, config: Any) -> None:
    value = getattr(config, name)
    if isinstance(value, str | float | type) or dataclasses.is_dataclass(value):
        check_kind(name, value, kind)


def _check_count(name: str, config: Any) -> None:
    value = getattr(config, name)
    array = _known(np.asarray(value) if isinstance(value, float | np.number) else value)
    if array is not None and array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a whole number such as 10, got {value!r}")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(f"{name} must lie in [-{_LARGEST}, {_LARGEST}], got {value}")


def _check_literal(name: str, choices: Any, config: Any) -> None:
    check_choice(name, getattr(config, name), choices)


def _check_function(name: str, config: Any) -> None:
    value = getattr(config, name)
    if not callable(value):
        raise ValueError(f"{name} must be a function, got {value!r}")


def _check_range(name: str, limits: tuple[float, float], config: Any) -> None:
    value = getattr(config, name)
    for one in value if isinstance(value, tuple) else (value,):
        check_number(name, one, *limits)


def _register(cls: type) -> None:
    """Make a pytree of `cls`.

    `jax.tree_util.register_dataclass` would not do: in JAX 0.10, treedefs of dataclasses compare
    equal whatever their classes, so PGD(Linf(0.1)) and PGD(L2(0.1)) could share a program.
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


def parse_number(text: str | float) -> float:
    """Read a number written as a decimal or as a fraction.

    Raises:
      ValueError: `text` is neither, or too large or too small for a float.

    >>> rj.config.parse_number("8/255") == 8 / 255
    True
    """
    if not isinstance(text, str):
        return float(text)
    try:
        top, slash, bottom = text.partition("/")
        value = float(top) / (float(bottom) if slash else 1)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{text!r} is not a number; write 0.03 or 8/255") from error
    if not math.isfinite(value) or (value == 0 and re.search("[1-9]", re.split("[eE/]", text)[0])):
        raise ValueError(f"{text!r} is too large or too small a number; write 0.03 or 8/255")
    return value


def format_number(value: float) -> str:
    """The inverse of `parse_number`: an exact short decimal or fraction, else all digits.

    >>> [rj.config.format_number(value) for value in (0.1, 8 / 255, 2**0.5)]
    ['0.1', '8/255', '1.4142135623730951']
    """
    if float(text := f"{value:g}") == value:
        return text
    fraction = Fraction(value).limit_denominator(1000)
    return str(fraction) if float(fraction) == value else repr(float(value))


def check_number(name: str, value: Any, low: float = 0.0, high: float = float("inf")) -> None:
    """Raise ValueError unless a number, or every entry of an array, lies in [low, high].

    Inside `jax.jit`, `grad` and `vmap` a number is a tracer without a value, and passes.

    >>> rj.config.check_number("momentum", jnp.float32(1.5), 0, 1)
    Traceback (most recent call last):
    ValueError: momentum must lie in [0, 1], got 1.5
    """
    if isinstance(value, str):
        raise ValueError(f"{name} must be a number, such as 8 / 255, not the text {value!r}")
    if (array := _known(value)) is not None:
        value = next(iter(array[~((low <= array) & (array <= high))]), None)
    number: Any = value
    if isinstance(value, int | float | np.generic) and not low <= number <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value}")


def _known(value: Any) -> np.ndarray | None:
    """The entries of an array of numbers, if it has values: a tracer has none.

    Nor has an array that is deleted, or on other hosts.
    """
    if isinstance(value, Tracer) or not isinstance(value, np.ndarray | jax.Array):
        return None
    if not jax.numpy.issubdtype(value.dtype, np.number):
        return None
    if isinstance(value, jax.Array) and (value.is_deleted() or not value.is_fully_addressable):
        return None
    return np.asarray(value)


def check_seed(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a seed; JAX would take a larger one modulo 2**32.

    >>> rj.config.check_seed("seed", 2**32)
    Traceback (most recent call last):
    ValueError: seed must be a whole number in [0, 4294967295], got 4294967296
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not 0 <= value < 2**32:
        raise ValueError(f"{name} must be a whole number in [0, {2**32 - 1}], got {value!r}")


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raise ValueError unless `value` is an instance of this class.

    >>> rj.config.check_kind("attack", "pgd", rj.attacks.PGD)
    Traceback (most recent call last):
    ValueError: attack must be a PGD, got 'pgd'
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ValueError(f"{name} must be {article} {kind.__name__}, got {value!r}")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise ValueError unless `value` is one of a `Literal`'s choices.

    >>> from typing import Literal
    >>> rj.config.check_choice("norm", "l3", Literal["linf", "l2"])
    Traceback (most recent call last):
    ValueError: norm must be one of linf, l2, got 'l3'
    """
    if value not in get_args(choices):
        known = ", ".join(get_args(choices))
        raise ValueError(f"{name} must be one of {known}, got {value!r}")


def encode(value: Any) -> Any:
    """Configs -> JSON: {"type": class name, "fields": {...}}; a function becomes its name.

    Names are bare for robustjax's own classes and functions and include the module for all others.
    Arrays keep all their numbers. What `decode` cannot rebuild is described: any other dataclass as
    if it were a config, and an array of more than 262,144 numbers by its type and shape.

    >>> rj.config.encode(rj.threats.Linf(0.1))["type"]
    'Linf'
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type_name(type(value)), "fields": fields}
    if isinstance(value, tuple | list):
        return [encode(v) for v in value]
    if isinstance(value, Mapping):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, functools.partial):
        return {
            "partial": encode(value.func),
            "args": encode(value.args),
            "keywords": encode(value.keywords),
        }
    if callable(value):
        return _name(value)
    if isinstance(value, np.ndarray | jax.Array) and value.ndim:
        return _write_array(np.asarray(value))
    return value


def _write_array(array: np.ndarray) -> Any:
    """The numbers of an array if they are few, else their packed bytes."""
    if array.size > STORED:
        return f"{array.dtype}{list(array.shape)}"
    written = {"array": str(array.dtype), "shape": list(array.shape)}
    if array.size <= LISTED:
        return written | {"numbers": array.reshape(-1).tolist()}
    packed = zlib.compress(np.ascontiguousarray(array).tobytes(), 9)
    return written | {"packed": base64.b64encode(packed).decode()}


def _read_array(data: Mapping[str, Any]) -> np.ndarray:
    kind, shape = np.dtype(data["array"]), data["shape"]
    if "numbers" in data:
        return np.asarray(data["numbers"], kind).reshape(shape)
    packed = zlib.decompress(base64.b64decode(data["packed"]))
    return np.frombuffer(packed, kind).reshape(shape)


LISTED, STORED = 16, 1 << 18
"""The largest arrays that JSON holds as numbers, and as packed bytes."""


def _name(function: Callable) -> str:
    """A function's name for JSON; a callable object has only a description, its type with ()."""
    if not hasattr(function, "__qualname__"):
        return f"{type(function).__name__}()"
    module = getattr(function, "__module__", None) or "builtins"
    ours = module.partition(".")[0] == "robustjax"
    return function.__name__ if ours else f"{module}.{function.__qualname__}"


def rewrites_older(rewrite: Rewrite) -> Rewrite:
    """Register what `decode` makes of fields that an older version wrote.

    >>> @rj.config.rewrites_older
    ... def rename(known, fields):
    ...     return {"width" if name == "breadth" else name: v for name, v in fields.items()}

    Args:
      rewrite: (fields of the class by name, encoded fields of the file) -> encoded fields.
    """
    _REWRITES.append(rewrite)
    return rewrite


def decode(data: Any, functions: Mapping[str, Callable]) -> Any:
    """Rebuild what `encode` wrote; `functions` resolves the fields that hold a function.

    Users' own classes and functions are found once their modules are imported; nothing is imported
    here.

    Raises:
      ValueError: an unknown type, field or function name.

    >>> rj.config.decode(rj.config.encode(rj.threats.Linf(0.1)), {}) == rj.threats.Linf(0.1)
    True
    """
    if isinstance(data, list):
        return tuple(decode(v, functions) for v in data)
    if not isinstance(data, Mapping):
        return data
    if set(data) == {"partial", "args", "keywords"}:
        args, keywords = decode(data["args"], functions), decode(data["keywords"], functions)
        return functools.partial(_function(data["partial"], functions), *args, **keywords)
    if {"array", "shape"} < set(data):
        return _read_array(data)
    if set(data) != {"type", "fields"}:
        return {k: decode(v, functions) for k, v in data.items()}
    if data["type"] not in _CLASSES:
        raise ValueError(f"unknown config type {data['type']!r}; {_advice(data['type'], _CLASSES)}")
    cls, values = _CLASSES[data["type"]], {}
    known = {f.name: f for f in dataclasses.fields(cls)}
    fields = dict(data["fields"])
    for rewrite in _REWRITES:
        fields = rewrite(known, fields)
    for name, value in fields.items():
        if name not in known:
            raise ValueError(f"{data['type']} has no field {name!r}; fields: {', '.join(known)}")
        values[name] = decode(value, functions)
        if callable(known[name].default) and isinstance(value, str):
            values[name] = _function(value, functions)
    return cls(**values)


def _function(name: str, functions: Mapping[str, Callable]) -> Callable:
    """Find a function by its bare name, or by its full name in a module that has been imported."""
    if name in functions:
        return functions[name]
    module, _, own = name.rpartition(".")
    of_user = module.partition(".")[0] not in ("", "robustjax", *sys.stdlib_module_names)
    found = getattr(sys.modules.get(module), own, None) if of_user else None
    if not callable(found) or _name(found) != name:
        raise ValueError(f"unknown function {name!r}; {_advice(name, functions)}")
    return found


def _advice(name: str, known: Mapping[str, Any]) -> str:
    module = name.rpartition(".")[0]
    return f"import {module} first" if module else f"known: {', '.join(sorted(known))}"
