"""What a type annotation asks of a value."""

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

from robustjax.checks.values import (
    BY_NAME,
    LARGEST,
    Check,
    a,
    check_choice,
    check_finite,
    check_text,
    entries_of,
    is_array,
    is_real,
    shown,
)


def of_parameter(name: str, kind: Any, fixed: bool = False, host: bool = False) -> Check | None:
    """What the name of a parameter or a field asks, or else its type."""
    check = BY_NAME.get(name)
    if check is None:
        return of_type(kind, fixed, host)
    optional = type(None) in get_args(kind)
    return lambda name, value: None if optional and value is None else check(name, value)


@functools.cache
def of_type(kind: Any, fixed: bool = False, host: bool = False) -> Check | None:
    """What a type asks of a value; None if nothing.

    Args:
      kind: a resolved annotation.
      fixed: an int is part of the program, so it cannot be traced or an array.
      host: arrays are computed by NumPy, so nothing can be traced, and they hold finite numbers.
    """
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if Any in options or None in options:
        return None
    nothing = type(None) in options
    options = tuple(option for option in options if option is not type(None))
    made = _of_options(options, fixed, host)
    if made is None or not nothing:
        return made
    return lambda name, value: None if value is None else made(name, value)


def _of_options(options: tuple[Any, ...], fixed: bool, host: bool) -> Check | None:
    arrays = any(isinstance(o, type) and issubclass(o, np.ndarray | jax.Array) for o in options)
    if arrays:
        others = tuple(o for o in options if isinstance(o, type) and o not in (int, float, complex))
        number = bool({int, float} & {*options})
        return functools.partial(_check_filled, others, host, number)
    if set(options) == {int} or set(options) == {int, float}:
        if float in options:
            return functools.partial(_check_real, fixed=fixed, host=host)
        return functools.partial(_check_count, fixed=fixed)
    if set(options) == {float}:
        return functools.partial(_check_real, fixed=fixed, host=host)
    if set(options) == {bool}:
        return _check_flag
    paths = {str, os.PathLike}
    if all((get_origin(o) or o) in paths or _is_path(o) for o in options):
        return check_text if set(options) == {str} else _check_path
    if len(options) > 1:
        found = [of_type(option, fixed, host) for option in options]
        known = [check for check in found if check is not None]
        return functools.partial(_check_any, known) if len(known) == len(found) else None
    return _of_one(next(iter(options)), fixed, host)


def _of_one(kind: Any, fixed: bool, host: bool) -> Check | None:
    origin = get_origin(kind)
    if origin is Literal:
        return lambda name, value: check_choice(name, value, kind)
    if origin is Callable or kind is Callable or origin is typing.Callable:
        wanted = (get_args(kind) or (...,))[0]
        count = len(wanted) if isinstance(wanted, list) else None
        return functools.partial(_check_function, count)
    if origin in (tuple, list, Sequence) or kind in (tuple, list, Sequence):
        return functools.partial(_check_sequence, kind, fixed, host)
    if origin in (dict, Mapping) or kind in (dict, Mapping):
        return functools.partial(_check_mapping, kind, fixed, host)
    if origin is type or kind is type:
        return _check_class
    kind = origin or kind  # a generic class is checked as a class
    if not isinstance(kind, type) or kind is object:
        return None
    if getattr(kind, "_is_protocol", False):
        if get_protocol_members(kind) == {"__call__"}:
            every = list(inspect.signature(kind.__call__).parameters.values())[1:]
            count = sum(p.default is p.empty for p in every if p.kind is not p.VAR_KEYWORD)
            return functools.partial(_check_function, count)
        return functools.partial(_check_members, kind)
    return functools.partial(_check_instance, kind)


def _is_path(kind: Any) -> bool:
    path: Any = os.PathLike  # a protocol to type checkers
    return isinstance(kind, type) and issubclass(kind, path)


def _check_instance(kind: type, name: str, value: Any) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {a(kind)}, got {shown(value)}")


def _check_members(protocol: type, name: str, value: Any) -> None:
    lacks = sorted(m for m in get_protocol_members(protocol) if not hasattr(value, m))
    if lacks or isinstance(value, type):
        mend = f", which lacks {', '.join(lacks)}" if lacks else ""
        raise ValueError(f"{name} must be {a(protocol)}, got {shown(value)}{mend}")


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


def _check_real(name: str, value: Any, fixed: bool, host: bool) -> None:
    if isinstance(value, Tracer) and not host and value.dtype.kind not in "b":
        return
    if isinstance(value, str):
        raise ValueError(f"{name} must be a number, such as 8 / 255, not the text {value!r}")
    most = 0 if fixed or host else 1  # one per example
    if (
        isinstance(value, Tracer)
        or not is_real(value)
        or not np.size(value)
        or np.ndim(value) > most
    ):
        raise ValueError(f"{name} must be a number such as 0.1, got {shown(value)}")
    if any(entry != entry for entry in entries_of(value)):
        raise ValueError(f"{name} must be a number such as 0.1, got nan")
    if isinstance(value, int) and abs(value) > (2**1000 if host else LARGEST):
        raise ValueError(f"{name} must be a number such as 0.1, or 1e10, got {shown(value)}")


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")


def _check_path(name: str, value: Any) -> None:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {shown(value)}")
    if value == "":
        raise ValueError(f"{name} must be a path, got ''; '.' is the current folder")


def _check_function(count: int | None, name: str, value: Any) -> None:
    of = f" of {count} argument{'' if count == 1 else 's'}" if count else ""
    if not callable(value) or inspect.ismodule(value):
        raise ValueError(f"{name} must be a function{of}, got {shown(value)}")
    if count is None:
        return
    try:
        signature = inspect.signature(value)
    except (ValueError, TypeError):  # some that are compiled do not tell
        return
    try:
        signature.bind(*range(count))
    except TypeError:
        raise ValueError(
            f"{name} must be a function{of}, got {shown(value)}, which takes {signature}"
        ) from None


def _check_class(name: str, value: Any) -> None:
    if not isinstance(value, type):
        raise TypeError(f"{name} must be a class, got {shown(value)}")


def _check_filled(
    others: tuple[type, ...], host: bool, number: bool, name: str, value: Any
) -> None:
    if isinstance(value, others) and not is_array(value):
        return
    check_array(name, value, host, number)
    if not np.size(value):
        raise ValueError(f"{name} must not be empty, got {shown(value)}")


def check_array(name: str, value: Any, host: bool = False, number: bool = True) -> None:
    """Raise unless it holds real numbers or bools, on the host finite ones."""
    if isinstance(value, Tracer) and host:
        raise TypeError(f"{name} is computed by NumPy and cannot be traced: call it outside jit")
    if isinstance(value, str):
        raise ValueError(f"{name} must be a number, such as 8 / 255, not the text {value!r}")
    if isinstance(value, int) and abs(value) > (2**1000 if host else LARGEST):
        raise ValueError(f"{name} must be a number such as 0.1, or 1e10, got {shown(value)}")
    if host and isinstance(value, list | tuple):
        value = as_array(name, value)
    array = is_array(value)
    if not array and (not isinstance(value, int | float) or isinstance(value, bool)):
        what = "a number or an array" if number else "an array"
        raise TypeError(f"{name} must be {what} of numbers, got {shown(value)}")
    if array and not (is_real(value) or value.dtype == bool):
        raise TypeError(f"{name} must hold real numbers, got {shown(value)}")
    if host:
        check_finite(name, value)


def check_arrays(name: str, value: Any, axes: int = 0) -> None:
    """Raise TypeError unless every leaf of a pytree is an array of so many axes at least.

    >>> rj.checks.check_arrays("weights", {"bias": "zeros"})
    Traceback (most recent call last):
    TypeError: weights must be an array or a pytree of arrays, got 'zeros'
    """
    for leaf in jax.tree.leaves(value):
        number = isinstance(leaf, int | float) or (
            hasattr(leaf, "shape") and hasattr(leaf, "dtype")
        )
        if not number or (is_array(leaf) and str(leaf.dtype).startswith(("<U", "|S", "object"))):
            raise TypeError(f"{name} must be an array or a pytree of arrays, got {shown(leaf)}")
        if isinstance(leaf, int) and abs(leaf) > LARGEST:
            raise ValueError(f"{name} must hold numbers of 32 bits, got {shown(leaf)}")
        if np.ndim(leaf) < axes:
            raise ValueError(f"{name} must have at least {axes} axes, got {shown(leaf)}")


def _check_sequence(kind: Any, fixed: bool, host: bool, name: str, value: Any) -> None:
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
        if check := of_type(args[position] if some is None else some, fixed, host):
            check(f"{name}[{position}]", entry)


def _check_mapping(kind: Any, fixed: bool, host: bool, name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a dictionary, got {shown(value)}")
    keys, values = get_args(kind) or (None, None)
    for key, entry in value.items():
        if keys is str and not isinstance(key, str):
            raise ValueError(f"{name} must have text as its keys, got {shown(key)}")
        if check := of_type(values, fixed, host):
            check(f"{name}[{key!r}]", entry)


def as_array(name: str, value: list | tuple) -> np.ndarray:
    """Nested sequences as an array; raise where they have several lengths."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
        raise TypeError(f"{name} must be an array: stack its traced entries by jnp.stack")
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be an array, got lists of several lengths") from None
