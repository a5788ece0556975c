"""What an attack is after: a wrong prediction, unless it is told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Success = Callable[[Any, jax.Array], jax.Array]
"""(output, true label y) -> bool: the attack has won at this image."""


def logits_of(output: Any) -> jax.Array:
    """The logits (K,) in what a model returns: all of it, its first entry, or its 'logits'."""
    if isinstance(output, Mapping):
        return output["logits"]
    return output[0] if isinstance(output, tuple | list) else output


def prediction(output: Any) -> jax.Array:
    """The class with the largest logit; -1, which is never right, where a logit is NaN."""
    logits = logits_of(output)
    return jnp.where(jnp.any(jnp.isnan(logits)), -1, jnp.argmax(logits))


def fooled(output: Any, y: jax.Array) -> jax.Array:
    """The usual success, targeted attacks included: the prediction is not the true label."""
    return prediction(output) != y
