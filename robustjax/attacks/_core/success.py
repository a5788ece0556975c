"""What an attack is after: a wrong prediction, unless it is told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from robustjax.outputs import logits_of as logits_of

Success = Callable[[Any, jax.Array], jax.Array]
"""(output, true label y) -> bool: the attack has won at this image."""


def prediction(output: Any) -> jax.Array:
    """The class with the largest logit; -1, which is never right, where a logit is NaN."""
    logits = logits_of(output)
    return jnp.where(jnp.any(jnp.isnan(logits)), -1, jnp.argmax(logits))


def fooled(output: Any, y: jax.Array) -> jax.Array:
    """The usual success, targeted attacks included: the prediction is not the true label."""
    return prediction(output) != y
