"""What an attack is after: a wrong prediction, unless it is told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from robustjax.outputs import logits_of as logits_of
from robustjax.outputs import prediction as prediction

Success = Callable[[Any, jax.Array], jax.Array]
"""(output, true label y) -> bool: the attack has won at this image."""


def fooled(output: Any, y: jax.Array) -> jax.Array:
    """The usual success, targeted attacks included: the prediction is not the true label."""
    return prediction(output) != y
