"""What a model returns for one example: logits alone, or logits and more."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from robustjax.typing import Loss


def logits_of(output: Any) -> jax.Array:
    """The logits (K,) in what a model returns: all of it, its first entry, or its 'logits'."""
    if isinstance(output, Mapping):
        return output["logits"]
    return output[0] if isinstance(output, tuple | list) else output


def float_logits(output: Any) -> jax.Array:
    """The logits in float32 at least."""
    logits = jnp.asarray(logits_of(output))
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def of_logits(loss: Callable[[jax.Array, Any], jax.Array]) -> Loss:
    """A loss of the logits, whatever else the model returns beside them, in float32 at least.

    Eight or eleven bits tell few losses apart, and 1e-12 is 0 in float16.
    """

    @functools.wraps(loss)
    def reading(output, target, **options):
        return loss(float_logits(output), target, **options)

    return reading
