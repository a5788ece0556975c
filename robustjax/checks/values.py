"""Checks of one value, by its range or kind, and how messages show it."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard, get_args

import jax
import numpy as np
from jax.core import Tracer

Check = Callable[[str, Any], None]
"""Raises ValueError or TypeError unless the value of this name is right."""
INF = math.inf
LARGEST = 2**31 - 1
"""The largest int of JAX, which computes in 32 bits."""


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
    wrong = [entry for entry in entries_of(value) if not low <= entry <= high]
    if wrong:
        limits = ", ".join(str(end) if isinstance(end, int) else f"{end:g}" for end in (low, high))
        raise ValueError(f"{name} must lie in [{limits}], got {shown(wrong[0])}")


def check_finite(name: str, value: Any) -> None:
    """Raise ValueError unless a number, or every entry of an array, is finite; tracers pass.

    >>> rj.checks.check_finite("weight", float("nan"))
    Traceback (most recent call last):
    ValueError: weight must be finite, got nan
    """
    if isinstance(value, Tracer) or not is_real(value):
        return
    wrong = [entry for entry in entries_of(value) if not -INF < entry < INF]
    if wrong:
        raise ValueError(f"{name} must be finite, got {shown(wrong[0])}")


def entries_of(value: Any) -> list[Any]:
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
    """Raise ValueError unless `value` is one PRNG key.

    >>> rj.checks.check_key("key", 0)
    Traceback (most recent call last):
    ValueError: key must be a PRNG key such as jax.random.key(0), got 0
    """
    typed = isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
    raw = isinstance(value, jax.Array | np.ndarray) and value.dtype == np.uint32
    if not (typed or raw) or value.ndim != (0 if typed else 1):
        raise ValueError(f"{name} must be a PRNG key such as jax.random.key(0), got {shown(value)}")


def check_image_shape(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is (H, W, C), three whole numbers.

    >>> rj.checks.check_image_shape("image_shape", (28, 28))
    Traceback (most recent call last):
    ValueError: image_shape must be (H, W, C), three whole numbers of at least 1, got (28, 28)
    """
    kinds = int | np.integer
    sizes = value if isinstance(value, tuple | list) else ()
    if len(sizes) != 3 or not all(isinstance(size, kinds) and size > 0 for size in sizes):
        raise ValueError(
            f"{name} must be (H, W, C), three whole numbers of at least 1, got {shown(value)}"
        )


BY_NAME: dict[str, Check] = {
    "key": check_key,
    "seed": check_seed,
    "center_seed": check_seed,
    "image_shape": check_image_shape,
}
"""What some names ask, wherever they stand, whatever their type."""


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raise ValueError unless `value` is an instance of this class.

    >>> rj.checks.check_kind("attack", "pgd", rj.attacks.PGD)
    Traceback (most recent call last):
    ValueError: attack must be a PGD, got 'pgd'
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {a(kind)}, got {shown(value)}")


def a(kind: type) -> str:
    """The name of a class with its article."""
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


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
    if inspect.isfunction(value):
        return f"the function {value.__qualname__}"
    if isinstance(value, Mapping) and len(value) > 32:
        return f"a {type(value).__name__} of {len(value)} entries"
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def is_array(value: Any) -> TypeGuard[np.ndarray | np.generic | jax.Array]:
    """Whether it is an array of NumPy or JAX, or a scalar of NumPy."""
    return isinstance(value, np.ndarray | np.generic | jax.Array)


def is_real(value: Any) -> bool:
    """Whether it is a real number or an array of such; bool is none.

    >>> [rj.checks.is_real(value) for value in (1, 0.5, jnp.ones(3), True, 1j, "1")]
    [True, True, True, False, False, False]
    """
    if hasattr(value, "dtype"):
        return any(jax.numpy.issubdtype(value.dtype, kind) for kind in (np.floating, np.integer))
    return isinstance(value, int | float) and not isinstance(value, bool)
