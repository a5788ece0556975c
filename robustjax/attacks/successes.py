"""When an attack has won, for outputs that are not softmax logits.

For the argument `success` of `perturb` and `evaluate`, and for the field of that name of attacks
which stop at success. Each has a loss of the same kind in `robustjax.losses`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from robustjax.attacks._core.success import fooled as fooled
from robustjax.config import config, number


def wrong_sign(output: jax.Array, y: jax.Array) -> jax.Array:
    """Whether a logit has the wrong sign: of a binary classifier, or any of a multi-label one's.

    Args:
      output: one logit () or (1,), or one per label (K,); above 0 means 1.
      y: 0 or 1, as many.

    >>> bool(rj.attacks.successes.wrong_sign(jnp.array([2.0, -1.0]), jnp.array([1, 1])))
    True
    """
    return jnp.any((jnp.ravel(output) > 0) != (jnp.ravel(y) > 0.5))


@config
class FartherThan:
    """Whether a number of the output is farther from its target than `tolerance`: regression.

    >>> bool(rj.attacks.successes.FartherThan(0.5)(jnp.array(1.25), jnp.array(1.0)))
    False
    """

    tolerance: float = number(default=1.0)

    def __call__(self, output: Any, y: jax.Array) -> jax.Array:
        """(output, target) -> bool."""
        return jnp.any(jnp.abs(jnp.ravel(output) - jnp.ravel(y)) > self.tolerance)


@config
class MorePixelsWrong:
    """Whether more than a fraction of the pixels have a wrong class: segmentation.

    >>> logits = jnp.zeros((2, 2, 3)).at[..., 1].set(1.0)  # class 1 everywhere
    >>> bool(rj.attacks.successes.MorePixelsWrong(0.5)(logits, jnp.array([[1, 1], [1, 0]])))
    False
    """

    fraction: float = number(default=0.5, high=1.0)

    def __call__(self, output: jax.Array, y: jax.Array) -> jax.Array:
        """(logits (H, W, K), classes (H, W)) -> bool."""
        return jnp.mean(jnp.argmax(output, -1) != y) > self.fraction
