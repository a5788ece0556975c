"""Config classes: their fields, and the pytree that JAX sees."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

from robustjax.checks import INF, arguments, check_fields, checked, shown

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


@checked(low=(-INF, INF), high=(-INF, INF))
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
    if not isinstance(cls, type):
        raise TypeError(f"cls must be a class, got {shown(cls)}")
    own = cls.__dict__.get("__post_init__") or getattr(cls, "__post_init__", lambda self: None)

    def __post_init__(self):
        if type(self) is cls:  # once, not again when a subclass calls super()
            check_fields(self)
        own(self)

    declared: Any = cls
    declared.__post_init__ = __post_init__
    cls = dataclasses.dataclass(frozen=True)(cls)
    cls.__eq__ = _equal
    _say_names(cls)
    _register(cls)
    name = type_name(cls)
    known = CLASSES.get(name)
    if known and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TypeError(f"a config named {name} already exists; choose another name")
    CLASSES[name] = cls
    return cls


def _say_names(cls: Any) -> None:
    """Let a call with an unknown or missing field say which, and what it may mean."""
    made = cls.__init__
    signature = inspect.signature(made)

    @functools.wraps(made)
    def __init__(*args, **options):
        try:
            made(*args, **options)
        except TypeError:
            arguments(signature, "__init__", args, options)
            raise

    cls.__init__ = __init__


@checked
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
