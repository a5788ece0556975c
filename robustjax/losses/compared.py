"""The kind of target that a loss compares the model's output with, declared by the loss."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax

from robustjax.checks import check_classes, checked

Compared = Literal["label", "pair", "reference"]
"""A class (or a distribution over them), a pair (label, class), or any arrays."""
F = TypeVar("F", bound=Callable[..., Any])


@checked
def compares_with(kind: Compared) -> Callable[[F], F]:
    """Decorate a loss (output, target) -> scalar with the kind of target that it takes.

    'label': a class () or a distribution (K,), the default. The loss decreases towards the class:
      an attack maximises it to leave a class, and minimises it to reach one.
    'pair': (label, class). The loss increases towards the class, and an attack maximises it.
    'reference': arrays that only the caller can supply, such as other logits. An attack maximises
      the loss.

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


@checked
def compared_with(loss: Callable[..., Any]) -> Compared:
    """The kind of target of a loss, even inside `functools.partial` or `jax.jit`.

    >>> from robustjax.losses import kl, margin
    >>> compared_with(margin), compared_with(jax.jit(kl))
    ('label', 'reference')
    """
    kind = getattr(loss, "compares_with", None)
    if kind is None:
        inner = getattr(loss, "func", None) or getattr(loss, "__wrapped__", None)
        return compared_with(inner) if callable(inner) else "label"
    return kind


def pair_of(target: Any, num_classes: int) -> tuple[jax.Array, jax.Array]:
    """The two halves of a pair (label, class), each below `num_classes`.

    Raises:
      TypeError: it is not a pair of integers.
      ValueError: there is no such class.
    """
    if not isinstance(target, tuple | list) or len(target) != 2:
        raise TypeError(
            "this loss takes a pair (label, class) as its target; decorate a loss that calls it "
            "with @losses.compares_with('pair')"
        )
    for position, half in enumerate(target):
        check_classes(f"target[{position}]", half, num_classes)
    return target[0], target[1]


def name_of(loss: Callable[..., Any]) -> str:
    """The name of a loss in error messages."""
    loss = loss.func if isinstance(loss, functools.partial) else loss
    return getattr(loss, "__name__", type(loss).__name__)
