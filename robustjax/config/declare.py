"""Config classes: their fields, and the pytree that JAX sees."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from typing import Any, TypeVar, dataclass_transform, get_args

import jax
import numpy as np

from robustjax.checks import Check, check_finite, check_number, of_type

T = TypeVar("T")
CLASSES: dict[str, type] = {}
"""Every config class by its `type_name`."""


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
    infinite: bool = False,
) -> Any:
    """Declare a field that holds a number in [low, high], or a tuple of such; None passes.

    Without it a float may be any number but NaN and the infinities, which only `infinite` allows.

    >>> @rj.config.config
    ... class Descent:
    ...     steps: int = rj.config.number(default=10, low=1)
    >>> Descent(steps=0)
    Traceback (most recent call last):
    ValueError: steps must lie in [1, inf], got 0
    """
    metadata = {"range": (low, high), "static": static, "infinite": infinite}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True, field_specifiers=(static, number, dataclasses.field))
def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and a pytree that `decode` finds by its name.

    Fields are checked by their types, and those declared `number(...)` by their range; tracers and
    arrays pass where the type is a number. JAX rebuilds the object around tracers and objects of
    its own without `__init__`, and so without a check.

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
            for name, checks in _checks(cls).items():
                for check in checks:
                    check(name, getattr(self, name))
        own(self)

    declared: Any = cls
    declared.__post_init__ = __post_init__
    cls = dataclasses.dataclass(frozen=True)(cls)
    cls.__eq__ = _equal
    _register(cls)
    name = type_name(cls)
    known = CLASSES.get(name)
    if known and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TypeError(f"a config named {name} already exists; choose another name")
    CLASSES[name] = cls
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
def _checks(cls: type) -> dict[str, tuple[Check, ...]]:
    """What the type and the range of each field ask."""
    found = {}
    for field in dataclasses.fields(cls):
        kind, limits = hint(cls, field), field.metadata.get("range")
        fixed = bool(field.metadata.get("static"))
        checks = [] if kind is None else [of_type(kind, fixed)]
        if limits is not None:
            checks.append(functools.partial(_check_range, limits))
        if not field.metadata.get("infinite") and float in _numbers(kind):
            checks.append(_check_finite)
        found[field.name] = tuple(check for check in checks if check is not None)
    return found


def _numbers(kind: Any) -> tuple[Any, ...]:
    """The types of a field's numbers: of a tuple's those inside; none if it can hold arrays."""
    options = get_args(kind) or (kind,)
    return () if jax.Array in options else options


def _check_range(limits: tuple[float, float], name: str, value: Any) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        if not isinstance(one, str):  # a word, which the type allows
            check_number(name, one, *limits)


def _check_finite(name: str, value: Any) -> None:
    for one in value if isinstance(value, tuple) else (value,):
        check_finite(name, one)


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
        node = object.__new__(cls)
        vars(node).update(zip(program + data, (*aux, *children), strict=True))
        return node

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
