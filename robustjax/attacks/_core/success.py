"""The aim of an attack: by default a wrong prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks._core.iterative import Example
from robustjax.outputs import logits_of as logits_of
from robustjax.outputs import prediction as prediction

Success = Callable[[Any, jax.Array], jax.Array]
"""(output, true label y) -> bool: the attack has won at this image."""


def fooled(output: Any, y: jax.Array) -> jax.Array:
    """The usual success: the prediction is not the true label.

    Raises:
      ValueError: the output holds no logits, or the label is no class.
    """
    if jnp.ndim(y):
        raise ValueError(
            f"labels of shape {('N', *jnp.shape(y))} are no classes: give a `success` of your own"
        )
    return prediction(output) != y


def is_class(given: Any) -> bool:
    """Whether the target that the caller gives is one class: (), of an integer type."""
    if not isinstance(given, jax.Array | np.ndarray | np.integer | int):
        return False
    return jnp.ndim(given) == 0 and jnp.issubdtype(jnp.result_type(given), jnp.integer)


def won_by(success: Success, output: Any, example: Example) -> jax.Array:
    """Whether `success` holds and, where the caller gives a class, the prediction is that class."""
    won = success(output, example.y)
    return won & (prediction(output) == example.target) if is_class(example.target) else won
