"""The fields of a dataclass, checked by their types and ranges."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from typing import Any, get_args

import jax

from robustjax.checks.kinds import of_parameter
from robustjax.checks.values import Check, check_finite, check_number


def check_fields(node: Any) -> None:
    """Raise ValueError or TypeError unless every field holds what its type and range ask.

    >>> @dataclasses.dataclass
    ... class Page:
    ...     width: int
    ...     def __post_init__(self):
    ...         rj.checks.check_fields(self)
    >>> Page("wide")
    Traceback (most recent call last):
    ValueError: width must be a whole number such as 10, got 'wide'
    """
    for name, checks in _checks(type(node)).items():
        for check in checks:
            check(name, getattr(node, name))


def hint(cls: type, field: dataclasses.Field) -> Any:
    """A field's type, even if annotations are postponed; None if it cannot be resolved.

    >>> @rj.config.config
    ... class Power:
    ...     exponent: int = 2
    >>> rj.checks.hint(Power, dataclasses.fields(Power)[0])
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


@functools.cache
def _checks(cls: type) -> dict[str, tuple[Check, ...]]:
    """What the type and the range of each field ask."""
    found = {}
    for field in dataclasses.fields(cls):
        kind, limits = hint(cls, field), field.metadata.get("range")
        fixed = bool(field.metadata.get("static"))
        checks = [] if kind is None else [of_parameter(field.name, kind, fixed)]
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
