"""How much of its budget an attack spends on an image: most where it is near to success."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from robustjax.typing import Scalar


def effort(
    least: Scalar, most: Scalar, best: jax.Array, clean: jax.Array, patience: Scalar
) -> jax.Array:
    """least + (most - least) (1 - h)^patience, where h = best / clean is the part that is left.

    It reads the values of one image and nothing else, so no image's result depends on others.

    Args:
      least, most: the budget where the attack has gained nothing, and at the boundary.
      best: () the largest value so far of a loss that is negative until the attack succeeds.
      clean: () its value at the clean image.
      patience: 0 gives every image the whole budget.

    >>> [float(effort(2, 10, jnp.float32(m), jnp.float32(-4), 3)) for m in (-4, -2, 0)]
    [2.0, 3.0, 10.0]
    """
    left = jnp.clip(best / jnp.minimum(clean, -1e-12), 0, 1)
    return jnp.where(jnp.isnan(left), least, least + (most - least) * (1 - left) ** patience)
