"""What a model returns for one example: logits alone, or logits and more."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from robustjax.typing import Loss


def logits_of(output: Any) -> jax.Array:
    """The logits (K,) in what a model returns: all of it, its first entry, or its 'logits'."""
    if isinstance(output, Mapping):
        return output["logits"]
    return output[0] if isinstance(output, tuple | list) else output


def of_logits(loss: Callable[[jax.Array, Any], jax.Array]) -> Loss:
    """A loss of the logits, whatever else the model returns beside them."""

    @functools.wraps(loss)
    def reading(output, target):
        return loss(logits_of(output), target)

    return reading
