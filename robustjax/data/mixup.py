"""Mixup: the mean of two images, weighted at random (Zhang et al. 2018)."""

from __future__ import annotations

import chex
import jax


def mixup(
    key: jax.Array, image: jax.Array, other: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """kept * image + (1 - kept) * other with kept ~ Beta(alpha, alpha).

    The mixed target is kept t + (1 - kept) t_other. The authors draw one number for a whole batch;
    here each example has its own.

    Args:
      key: a PRNG key.
      image: (H, W, C), one example; `jax.vmap` makes the batch.
      other: (H, W, C).
      alpha: the larger, the nearer to 1/2 the weights are; 1 is uniform.

    Returns:
      (image (H, W, C), kept ()).

    References:
      Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018.

    Guarantees:
      Each pixel lies between those of the two images, at the same place.
    """
    chex.assert_rank([image, other], 3)
    kept = jax.random.beta(key, alpha, alpha)
    return kept * image + (1 - kept) * other, kept
