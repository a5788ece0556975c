"""A decorator that checks the arguments of a function."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from robustjax.checks.axes import Axes
from robustjax.checks.kinds import of_parameter
from robustjax.checks.values import Check, check_finite, check_number, near

F = TypeVar("F", bound=Callable[..., Any])
Asked = str | tuple[float, float] | Check | list[Any]
"""The axes of an array, the range of a number, a check, or a list of them."""


@typing.overload
def checked(function: F, /) -> F: ...
@typing.overload
def checked(*, host: bool = False, **asked: Asked) -> Callable[[F], F]: ...
def checked(function: Any = None, /, *, host: bool = False, **asked: Asked) -> Any:
    """Decorate a function: its arguments are checked by its annotations and by what is asked.

    Args:
      function: what to decorate; None if the decorator itself takes arguments.
      host: it computes with NumPy: its arrays hold finite numbers, and are not traced.
      asked: parameter -> the axes of an array, the range of a number, or a check (name, value).

    >>> @rj.checks.checked(share=(0, 1))
    ... def keep(images: jax.Array, share: float) -> jax.Array:
    ...     return images[: int(share * len(images))]
    >>> keep(jnp.ones((4, 8, 8, 1)), 50)
    Traceback (most recent call last):
    ValueError: share must lie in [0, 1], got 50
    """
    if function is None:
        return lambda function: _checking(function, host, asked)
    return _checking(function, host, asked)


def in_body(name: str, value: Any) -> None:
    """What to ask of a parameter that the function checks itself, since it can say more."""


def _checking(function: Callable, host: bool, asked: dict[str, Asked]) -> Callable:
    signature = inspect.signature(function)
    checks: dict[str, Check | None] = {}
    optional = {
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is None or "None" in str(parameter.annotation)
    }

    @functools.wraps(function)
    def checking(*args: Any, **options: Any) -> Any:
        given = arguments(signature, function.__name__, args, options)
        if not checks:
            checks.update(_by_type(function, signature, host, asked))
        for name, value in given.items():
            if check := checks.get(name):
                check(name, value)
        sizes = {name: (value, name) for name, value in given.items() if isinstance(value, int)}
        for name in asked:
            if name in given and (given[name] is not None or name not in optional):
                _check_asked(name, given[name], asked[name], sizes)
        return function(*args, **options)

    return checking


def arguments(signature: inspect.Signature, name: str, args: Any, options: Any) -> dict[str, Any]:
    """Parameter -> what a call gives it; TypeError with the closest name if there is none."""
    try:
        return signature.bind(*args, **options).arguments
    except TypeError as error:
        known = [parameter for parameter in signature.parameters if parameter not in options]
        word = re.findall(r"unexpected keyword argument '(\w+)'", str(error))
        name = args[0].__class__.__name__ if name == "__init__" and args else name
        raise TypeError(f"{name}: {error}{near(word[0], known) if word else ''}") from None


def _by_type(
    function: Callable, signature: inspect.Signature, host: bool, asked: dict[str, Asked]
) -> dict[str, Check | None]:
    """Parameter -> what its name or its annotation asks."""
    checks = {}
    for name, parameter in signature.parameters.items():
        kind = resolve(parameter.annotation, function)
        if asked.get(name) is in_body:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            kind = Any  # whoever it is handed to checks it
        found = of_parameter(name, kind, fixed=True, host=host)
        finite = kind in (float, float | None) and not isinstance(asked.get(name), tuple)
        checks[name] = _both(found, check_finite) if finite else found
    return checks


def _both(first: Check | None, then: Check) -> Check:
    def check(name: str, value: Any) -> None:
        if first:
            first(name, value)
        then(name, value)

    return check


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


def _check_asked(name: str, value: Any, asked: Asked, sizes: dict[str, Any]) -> None:
    if isinstance(asked, list):
        for one in asked:
            _check_asked(name, value, one, sizes)
    elif isinstance(asked, str):
        Axes(asked).check(name, value, sizes)
    elif isinstance(asked, tuple):
        for one in value if isinstance(value, tuple | list) else (value,):
            check_number(name, one, *asked)
    else:
        asked(name, value)
