"""What a loss compares the model's output with: it says so itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax

Compared = Literal["label", "pair", "reference"]
"""A class (or a distribution over them), a pair (label, class), or any arrays."""
F = TypeVar("F", bound=Callable[..., Any])


def compares_with(kind: Compared) -> Callable[[F], F]:
    """Decorate a loss (output, target) -> scalar with the kind of target that it takes.

    'label': a class () or a distribution (K,). It falls towards the class: an attack maximises it
      to leave a class, and minimises it to reach one. So is a loss without this decorator.
    'pair': (label, class), which an attack makes of the class it goes to. It grows towards it.
    'reference': arrays that only the caller can give, such as other logits. Maximised.

    >>> @compares_with("pair")
    ... def ahead(logits, pair):
    ...     label, aim = pair
    ...     return logits[aim] - logits[label]
    >>> compared_with(functools.partial(ahead))
    'pair'
    """

    def mark(loss: F) -> F:
        setattr(loss, "compares_with", kind)  # noqa: B010
        return loss

    return mark


def compared_with(loss: Callable[..., Any]) -> Compared:
    """The kind of a loss, also behind `functools.partial` and `jax.jit`; undecorated: 'label'."""
    kind = getattr(loss, "compares_with", None)
    if kind is None:
        inner = getattr(loss, "func", None) or getattr(loss, "__wrapped__", None)
        return compared_with(inner) if callable(inner) else "label"
    return kind


def pair_of(target: Any) -> tuple[jax.Array, jax.Array]:
    """The two halves of a pair (label, class).

    Raises:
      TypeError: it is no pair.
    """
    if not isinstance(target, tuple | list) or len(target) != 2:
        raise TypeError(
            "this loss is compared with a pair (label, class); say so of a loss that calls it: "
            "@losses.compares_with('pair')"
        )
    return target[0], target[1]


def name_of(loss: Callable[..., Any]) -> str:
    """What an error calls a loss."""
    loss = loss.func if isinstance(loss, functools.partial) else loss
    return getattr(loss, "__name__", type(loss).__name__)
