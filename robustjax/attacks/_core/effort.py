"""How much of its budget an attack spends on an image: most where it is near to breaking it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import is_class
from robustjax.losses import margin
from robustjax.typing import Scalar


def goal_margin(example: Example, logits: jax.Array) -> jax.Array:
    """The margin of the goal, negative until it is reached: a wrong class, or the given one.

    >>> example = Example(None, None, 0), Example(None, None, 0, target=1)
    >>> [float(goal_margin(e, jnp.array([3.0, 1.0, 2.0]))) for e in example]
    [-1.0, -2.0]
    """
    if is_class(example.target):
        return -margin(logits, example.target)
    return margin(logits, example.y)


def deserved(
    least: Scalar, most: Scalar, best: jax.Array, clean: jax.Array, patience: Scalar
) -> jax.Array:
    """least + (most - least) (1 - h)^patience, with h = best / clean, the margin that is left.

    It reads one image's margins and nothing else, so an image's result does not depend on others.

    Args:
      least, most: the budget where the attack has gained nothing, and at the boundary.
      best: () the largest margin so far, negative until the goal is reached.
      clean: () the margin of the clean image.
      patience: 0 gives every image the whole budget.

    >>> [float(deserved(2, 10, jnp.float32(m), jnp.float32(-4), 3)) for m in (-4, -2, 0)]
    [2.0, 3.0, 10.0]
    """
    left = jnp.clip(best / jnp.minimum(clean, -1e-12), 0, 1)
    return jnp.where(jnp.isnan(left), least, least + (most - least) * (1 - left) ** patience)
