"""Arguments at the boundary: what their types, ranges and shapes ask, in messages that name them.

`@checked` reads a function's annotations; what a type cannot say stands beside it:

    @checked(logits="K", label="< K", weight=(0, 1))
    def loss(logits: jax.Array, label: jax.Array, weight: float = 0.5) -> jax.Array:

A text describes an array by its axes: "N D" has two, "" none, "K | K D" either, "..." any number;
a letter is one size wherever it occurs in a call. "N < K" holds N whole numbers from 0 to K - 1. A
pair is a range. Tracers have a shape and a type, so a compiled program is checked when it is
traced, and costs nothing when it runs.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import jax
import numpy as np
from jax.core import Tracer
from typing_extensions import get_protocol_members

F = TypeVar("F", bound=Callable[..., Any])
Check = Callable[[str, Any], None]
"""Raises ValueError or TypeError unless the value of this name is right."""
Asked = str | tuple[float, float] | Check
"""The axes of an array, the range of a number, or a check."""
INF = math.inf
LARGEST = 2**31 - 1
"""The largest int of JAX, which computes in 32 bits."""


# ---- single values


def check_number(name: str, value: Any, low: float = 0.0, high: float = INF) -> None:
    """Raise ValueError unless a number, or every entry of an array, lies in [low, high].

    Tracers pass, and so does None.

    >>> rj.checks.check_number("momentum", 1.5, 0, 1)
    Traceback (most recent call last):
    ValueError: momentum must lie in [0, 1], got 1.5
    """
    if value is None or isinstance(value, Tracer):
        return
    if isinstance(value, str):
        raise ValueError(f"{name} must be a number, such as 8 / 255, not the text {value!r}")
    if not is_real(value):
        raise ValueError(f"{name} must be a number such as 0.1, got {shown(value)}")
    wrong = [entry for entry in _entries(value) if not low <= entry <= high]
    if wrong:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {shown(wrong[0])}")


def check_finite(name: str, value: Any) -> None:
    """Raise ValueError unless a number, or every entry of an array, is finite; tracers pass.

    >>> rj.checks.check_finite("weight", float("nan"))
    Traceback (most recent call last):
    ValueError: weight must be finite, got nan
    """
    if isinstance(value, Tracer) or not is_real(value):
        return
    wrong = [entry for entry in _entries(value) if not -INF < entry < INF]
    if wrong:
        raise ValueError(f"{name} must be finite, got {shown(wrong[0])}")


def _entries(value: Any) -> list[Any]:
    """A number, or the least and the largest of an array's; NaN if there is one.

    None of an array without values here: a tracer, one that is deleted, or on other hosts.
    """
    if isinstance(value, int | float):
        return [value]
    if isinstance(value, Tracer) or (
        isinstance(value, jax.Array) and (value.is_deleted() or not value.is_fully_addressable)
    ):
        return []
    entries = np.asarray(value)
    return [entries.min().item(), entries.max().item()] if entries.size else []


def check_seed(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a seed; JAX would take a larger one modulo 2**32.

    >>> rj.checks.check_seed("seed", 2**32)
    Traceback (most recent call last):
    ValueError: seed must be a whole number in [0, 4294967295], got 4294967296
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not 0 <= value < 2**32:
        raise ValueError(f"{name} must be a whole number in [0, {2**32 - 1}], got {shown(value)}")


def check_key(name: str, value: Any) -> None:
    """Raise TypeError unless `value` is one PRNG key.

    >>> rj.checks.check_key("key", 0)
    Traceback (most recent call last):
    TypeError: key must be a PRNG key such as jax.random.key(0), got 0
    """
    typed = isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
    raw = isinstance(value, jax.Array | np.ndarray) and value.dtype == np.uint32
    if not (typed or raw) or value.ndim != (0 if typed else 1):
        raise TypeError(f"{name} must be a PRNG key such as jax.random.key(0), got {shown(value)}")


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raise ValueError unless `value` is an instance of this class.

    >>> rj.checks.check_kind("attack", "pgd", rj.attacks.PGD)
    Traceback (most recent call last):
    ValueError: attack must be a PGD, got 'pgd'
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ValueError(f"{name} must be {article} {kind.__name__}, got {shown(value)}")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise ValueError unless `value` is one of a `Literal`'s choices.

    >>> from typing import Literal
    >>> rj.checks.check_choice("norm", "linff", Literal["linf", "l2"])
    Traceback (most recent call last):
    ValueError: norm must be one of linf, l2, got 'linff'; did you mean linf?
    """
    known = get_args(choices)
    if not any(type(value) is type(choice) and value == choice for choice in known):
        words = ", ".join(map(str, known))
        raise ValueError(f"{name} must be one of {words}, got {shown(value)}{near(value, known)}")


def check_text(name: str, value: Any) -> None:
    """Raise TypeError unless `value` is text.

    >>> rj.checks.check_text("name", 3)
    Traceback (most recent call last):
    TypeError: name must be text, got 3
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {shown(value)}")


def near(word: Any, known: Iterable[Any]) -> str:
    """'; did you mean X?' of a word that is close to a known one.

    >>> rj.checks.near("mergin", ["margin", "dlr"])
    '; did you mean margin?'
    """
    close = difflib.get_close_matches(str(word).lower(), [str(k) for k in known], 1)
    return f"; did you mean {close[0]}?" if close else ""


def shown(value: Any) -> str:
    """A value in an error message: short, and of an array only the type and the shape.

    >>> rj.checks.shown(np.zeros((2, 3)))
    'an array of float64 of shape (2, 3)'
    """
    if isinstance(value, Tracer):
        return f"the traced {value.aval}"
    if isinstance(value, np.ndarray | jax.Array) and value.ndim:
        return f"an array of {value.dtype} of shape {value.shape}"
    if isinstance(value, int) and abs(value) > 2**128:
        return "a number of more than 38 digits"
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def is_real(value: Any) -> bool:
    """Whether it is a real number or an array of such; bool is none.

    >>> [rj.checks.is_real(value) for value in (1, 0.5, jnp.ones(3), True, 1j, "1")]
    [True, True, True, False, False, False]
    """
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return jax.numpy.issubdtype(value.dtype, np.floating) or value.dtype.kind in "iu"
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---- what a type asks


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
        return functools.partial(_check_array, host=host, number=bool({int, float} & {*options}))
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
    classes = all(isinstance(o, type) and o.__module__ != "builtins" for o in options)
    if len(options) > 1 and classes:
        return functools.partial(_check_object, options)
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
        return _check_function
    if origin in (tuple, list, Sequence) or kind in (tuple, list, Sequence):
        return functools.partial(_check_sequence, kind, fixed, host)
    if origin in (dict, Mapping) or kind in (dict, Mapping):
        return functools.partial(_check_mapping, kind, fixed, host)
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


def _check_real(name: str, value: Any, fixed: bool, host: bool) -> None:
    if isinstance(value, Tracer) and not host and value.dtype.kind not in "b":
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


def _check_array(name: str, value: Any, host: bool, number: bool) -> None:
    if isinstance(value, Tracer) and host:
        raise TypeError(f"{name} is computed by NumPy and cannot be traced: call it outside jit")
    if isinstance(value, str):
        raise ValueError(f"{name} must be a number, such as 8 / 255, not the text {value!r}")
    array = isinstance(value, np.ndarray | np.generic | jax.Array)
    if not array and not isinstance(value, int | float):
        what = "a number or an array" if number else "an array"
        raise TypeError(f"{name} must be {what} of numbers, got {shown(value)}")
    if array and not (is_real(value) or value.dtype == bool):
        raise TypeError(f"{name} must hold real numbers, got {shown(value)}")
    if host:
        check_finite(name, value)


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


# ---- what is asked beside the type


class Axes:
    """The shapes that a text describes, and whether the entries are whole numbers below a size."""

    def __init__(self, text: str):
        text, less, below = text.partition("<")
        self.below = below.strip() if less else None
        self.shapes = [shape.split() for shape in text.split("|")]

    def __str__(self):
        several = [f"({', '.join(s)}{',' if len(s) == 1 else ''})" for s in self.shapes]
        whole = "" if self.below is None else f" of whole numbers below {self.below}"
        return " or ".join(several) + whole

    def check(self, name: str, value: Any, sizes: dict[str, int]) -> None:
        """Raise unless a value fits; note the sizes of its axes, or compare them with others."""
        if isinstance(value, list | tuple):
            value = _as_array(name, value)
        _check_array(name, value, host=False, number=True)
        shape = np.shape(value)
        fitting = [
            axes
            for axes in self.shapes
            if axes == ["..."] or (len(axes) == len(shape) and all(shape))
        ]
        if not fitting:
            batch = any(len(axes) == len(shape) - 1 for axes in self.shapes) and all(shape)
            mend = "; jax.vmap makes a batch" if batch else ""
            raise ValueError(f"{name} must have the shape {self}, got {shape}{mend}")
        if fitting[0] != ["..."]:
            for axis, size in zip(fitting[0], shape, strict=True):
                known = int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
                if known != size:
                    raise ValueError(
                        f"{name} must have the shape {self} with {axis} = {known}, got {shape}"
                    )
        if self.below is not None:
            self._check_classes(name, value, sizes.get(self.below, LARGEST))

    def _check_classes(self, name: str, value: Any, most: int) -> None:
        kind = getattr(value, "dtype", np.asarray(value).dtype).kind
        if kind not in "iu":
            raise TypeError(
                f"{name} must be of an integer type, a class from 0 to {most - 1}, "
                f"got {shown(value)}"
            )
        if isinstance(value, Tracer):
            return
        for entry in _entries(value):
            if not 0 <= entry < most:
                raise ValueError(f"{name} must lie in [0, {most - 1}], got {entry}")


def _as_array(name: str, value: list | tuple) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be an array, got lists of several lengths") from None


def _check_asked(name: str, value: Any, asked: Asked, sizes: dict[str, int]) -> None:
    if value is None:
        return
    if isinstance(asked, str):
        pair = asked.split(",")
        if len(pair) > 1:
            for part, axes in zip(value, pair, strict=True):
                Axes(axes).check(name, part, sizes)
        else:
            Axes(asked).check(name, value, sizes)
    elif isinstance(asked, tuple):
        for one in value if isinstance(value, tuple | list) else (value,):
            check_number(name, one, *asked)
    else:
        asked(name, value)


# ---- functions


def checked(*, host: bool = False, **asked: Asked) -> Callable[[F], F]:
    """Decorate a function: its arguments are checked by its annotations and by what is asked.

    Args:
      host: it computes with NumPy: its arrays hold finite numbers, and are not traced.
      asked: parameter -> the axes of an array, the range of a number, or a check (name, value).

    >>> @rj.checks.checked(share=(0, 1))
    ... def keep(images: jax.Array, share: float) -> jax.Array:
    ...     return images[: int(share * len(images))]
    >>> keep(jnp.ones((4, 8, 8, 1)), 50)
    Traceback (most recent call last):
    ValueError: share must lie in [0, 1], got 50
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        checks: dict[str, Check | None] = {}

        def prepare() -> None:
            for name, parameter in signature.parameters.items():
                kind = resolve(parameter.annotation, function)
                checks[name] = None if kind is Any else of_type(kind, fixed=True, host=host)

        @functools.wraps(function)
        def checking(*args: Any, **options: Any) -> Any:
            try:
                given = signature.bind(*args, **options).arguments
            except TypeError as error:
                known = [name for name in signature.parameters if name not in options]
                word = re.findall(r"unexpected keyword argument '(\w+)'", str(error))
                mend = near(word[0], known) if word else ""
                raise TypeError(f"{function.__name__}: {error}{mend}") from None
            if not checks:
                prepare()
            sizes: dict[str, int] = {}
            for name, value in given.items():
                if check := checks[name]:
                    check(name, value)
                if name in asked:
                    _check_asked(name, value, asked[name], sizes)
                elif signature.parameters[name].annotation in ("float", float):
                    check_finite(name, value)
            return function(*args, **options)

        return typing.cast(F, checking)

    return decorate


def resolve(annotation: Any, function: Callable) -> Any:
    """An annotation as a type, even if it is postponed; Any if it is missing or unknown."""
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return eval(annotation, dict(scope))
    except (NameError, AttributeError):  # imported for type checkers only
        return Any
