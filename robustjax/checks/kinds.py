"""What a type asks of a value, as a check of its own."""

from __future__ import annotations

import functools
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import jax
import numpy as np
from jax.core import Tracer
from typing_extensions import get_protocol_members

from robustjax.checks.values import Check, check_choice, check_text, is_real, shown

LARGEST = 2**31 - 1
"""The largest int of JAX, which computes in 32 bits."""


@functools.cache
def of_type(kind: Any, fixed: bool = False) -> Check | None:
    """What a type asks of a value; None if nothing.

    Args:
      kind: a resolved annotation.
      fixed: an int is part of the program, so it cannot be traced or an array.
    """
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if Any in options or None in options:
        return None
    nothing = type(None) in options
    options = tuple(option for option in options if option is not type(None))
    made = _of_options(options, fixed)
    if made is None or not nothing:
        return made
    return lambda name, value: None if value is None else made(name, value)


def _of_options(options: tuple[Any, ...], fixed: bool) -> Check | None:
    arrays = any(isinstance(o, type) and issubclass(o, np.ndarray | jax.Array) for o in options)
    if arrays:
        return functools.partial(_check_array, number=bool({int, float} & {*options}))
    if set(options) == {int} or set(options) == {int, float}:
        if float in options:
            return functools.partial(_check_real, fixed=fixed)
        return functools.partial(_check_count, fixed=fixed)
    if set(options) == {float}:
        return functools.partial(_check_real, fixed=fixed)
    if set(options) == {bool}:
        return _check_flag
    paths = {str, os.PathLike}
    if all((get_origin(o) or o) in paths or _is_path(o) for o in options):
        return check_text if set(options) == {str} else _check_path
    classes = all(isinstance(o, type) and o.__module__ != "builtins" for o in options)
    if len(options) > 1 and classes:
        return functools.partial(_check_object, options)
    if len(options) > 1:
        found = [of_type(option, fixed) for option in options]
        known = [check for check in found if check is not None]
        return functools.partial(_check_any, known) if len(known) == len(found) else None
    return _of_one(next(iter(options)), fixed)


def _of_one(kind: Any, fixed: bool) -> Check | None:
    origin = get_origin(kind)
    if origin is Literal:
        return lambda name, value: check_choice(name, value, kind)
    if origin is Callable or kind is Callable or origin is typing.Callable:
        return _check_function
    if origin in (tuple, list, Sequence) or kind in (tuple, list, Sequence):
        return functools.partial(_check_sequence, kind, fixed)
    if origin in (dict, Mapping) or kind in (dict, Mapping):
        return functools.partial(_check_mapping, kind, fixed)
    if origin is type or kind is type:
        return _check_class
    if not isinstance(kind, type) or kind is object:
        return None
    if getattr(kind, "_is_protocol", False):
        runtime = getattr(kind, "_is_runtime_protocol", False)
        return functools.partial(_check_instance, kind) if runtime else _check_function
    return functools.partial(_check_instance, kind)


def _is_path(kind: Any) -> bool:
    path: Any = os.PathLike  # a protocol to type checkers
    return isinstance(kind, type) and issubclass(kind, path)


def _check_instance(kind: type, name: str, value: Any) -> None:
    protocol = getattr(kind, "_is_protocol", False)
    if (protocol and isinstance(value, type)) or not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        own = protocol and type(value).__module__ not in ("builtins", "numpy")
        lacks = sorted(get_protocol_members(kind) - set(dir(value))) if own else ()
        mend = f", which lacks {', '.join(lacks)}" if lacks else ""
        raise ValueError(f"{name} must be {article} {kind.__name__}, got {shown(value)}{mend}")


def _check_object(kinds: Sequence[type], name: str, value: Any) -> None:
    """A union lists the classes that we have; a user's own is as good."""
    plain = isinstance(value, type) or type(value).__module__ in ("builtins", "numpy")
    if plain or isinstance(value, jax.Array):
        *some, last = [kind.__name__ for kind in kinds]
        raise ValueError(f"{name} must be a {', '.join(some)} or {last}, got {shown(value)}")


def _check_any(checks: Sequence[Check], name: str, value: Any) -> None:
    errors = []
    for check in checks:
        try:
            return check(name, value)
        except (ValueError, TypeError) as error:
            errors.append(error)
    wanted = [str(e).partition(" must be ")[2].partition(", got ")[0] for e in errors]
    if not all(wanted):
        raise errors[0]
    raise ValueError(f"{name} must be {' or '.join(wanted)}, got {shown(value)}")


def _check_count(name: str, value: Any, fixed: bool) -> None:
    if isinstance(value, Tracer) and not fixed:
        return
    one = isinstance(value, np.ndarray | jax.Array) and not value.ndim and not fixed
    if isinstance(value, bool) or (not isinstance(value, int | np.integer) and not one):
        raise ValueError(f"{name} must be a whole number such as 10, got {shown(value)}")
    if one and np.dtype(getattr(value, "dtype", int)).kind not in "iu":
        raise ValueError(f"{name} must be a whole number such as 10, got {shown(value)}")
    if not isinstance(value, Tracer) and abs(int(value)) > LARGEST:
        raise ValueError(f"{name} must lie in [-{LARGEST}, {LARGEST}], got {shown(value)}")


def _check_real(name: str, value: Any, fixed: bool) -> None:
    if isinstance(value, Tracer) and value.dtype.kind not in "b":
        return
    if isinstance(value, str):
        raise ValueError(f"{name} must be a number, such as 8 / 255, not the text {value!r}")
    if isinstance(value, Tracer) or not is_real(value) or (fixed and np.ndim(value)):
        raise ValueError(f"{name} must be a number such as 0.1, got {shown(value)}")
    if not isinstance(value, np.ndarray | jax.Array) and value != value:
        raise ValueError(f"{name} must be a number such as 0.1, got nan")
    if isinstance(value, int) and abs(value) > 2**1000:
        raise ValueError(f"{name} must be a number such as 0.1, got {shown(value)}")


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")


def _check_path(name: str, value: Any) -> None:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {shown(value)}")


def _check_function(name: str, value: Any) -> None:
    if not callable(value) or inspect.ismodule(value):
        raise ValueError(f"{name} must be a function, got {shown(value)}")


def _check_class(name: str, value: Any) -> None:
    if not isinstance(value, type):
        raise TypeError(f"{name} must be a class, got {shown(value)}")


def _check_array(name: str, value: Any, number: bool) -> None:
    if isinstance(value, str):
        raise ValueError(f"{name} must be a number, such as 8 / 255, not the text {value!r}")
    array = isinstance(value, np.ndarray | np.generic | jax.Array)
    if not array and not isinstance(value, int | float):
        what = "a number or an array" if number else "an array"
        raise TypeError(f"{name} must be {what} of numbers, got {shown(value)}")
    if array and not (is_real(value) or value.dtype == bool):
        raise TypeError(f"{name} must hold real numbers, got {shown(value)}")


def _check_sequence(kind: Any, fixed: bool, name: str, value: Any) -> None:
    origin, args = get_origin(kind) or kind, get_args(kind)
    if origin is Sequence and isinstance(value, np.ndarray) and value.ndim:
        value = value.tolist()
    wanted = tuple | list if origin is Sequence else origin
    if not isinstance(value, wanted) or hasattr(value, "_fields"):
        word = "sequence" if origin is Sequence else origin.__name__
        raise ValueError(f"{name} must be a {word}, got {shown(value)}")
    if not args:
        return
    some = args[0] if origin is not tuple or args[-1] is ... else None
    if some is None and len(value) != len(args):
        raise ValueError(f"{name} must hold {len(args)} values, got {shown(value)}")
    for position, entry in enumerate(value):
        if check := of_type(args[position] if some is None else some, fixed):
            check(f"{name}[{position}]", entry)


def _check_mapping(kind: Any, fixed: bool, name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a dictionary, got {shown(value)}")
    keys, values = get_args(kind) or (None, None)
    for key, entry in value.items():
        if keys is str and not isinstance(key, str):
            raise ValueError(f"{name} must have text as its keys, got {shown(key)}")
        if check := of_type(values, fixed):
            check(f"{name}[{key!r}]", entry)
