"""Mixup: the randomly weighted mean of two images (Zhang et al. 2018)."""

from __future__ import annotations

import jax

from robustjax.checks import INF, check_finite, checked


@checked(image="H W C", other="H W C", alpha=[(0, INF), check_finite])
def mixup(
    key: jax.Array, image: jax.Array, other: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """kept * image + (1 - kept) * other with kept ~ Beta(alpha, alpha).

    The mixed target is kept t + (1 - kept) t_other. The authors draw one weight for a whole batch;
    here each example has its own.

    Args:
      key: a PRNG key.
      image: (H, W, C), one example; `jax.vmap` makes the batch.
      other: (H, W, C).
      alpha: larger values bring the weights closer to 1/2; 1 is uniform.

    Returns:
      (image (H, W, C), kept ()).

    References:
      Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018.

    Guarantees:
      Each pixel lies between the two images' pixels at the same place.

    >>> key, black, white = jax.random.key(0), jnp.zeros((8, 8, 1)), jnp.ones((8, 8, 1))
    >>> mixed, kept = jax.jit(rj.data.mixup)(key, white, black, alpha=1.0)
    >>> bool((mixed == kept).all())
    True
    """
    kept = jax.random.beta(key, alpha, alpha)
    return kept * image + (1 - kept) * other, kept
