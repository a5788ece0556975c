"""CutMix: a box of one image pasted into another (Yun et al. 2019)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from robustjax.checks import checked


@checked(image="H W C", other="H W C")
def cutmix(key: jax.Array, image: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Paste a random box of `other` into `image`, at the same place.

    With u uniform on [0, 1], which is Beta(1, 1), the box extends floor(H sqrt(u) / 2) rows and
    floor(W sqrt(u) / 2) columns to each side of a uniformly drawn pixel, and is clipped at the
    border. The mixed target is kept t + (1 - kept) t_other. Gowal et al.'s code draws one box for a
    whole batch; here each example has its own.

    Args:
      key: a PRNG key.
      image: (H, W, C), one example; `jax.vmap` makes the batch.
      other: (H, W, C).

    Returns:
      (image (H, W, C), the fraction of its area that is kept ()).

    References:
      Yun et al., "CutMix", ICCV 2019; Rebuffi et al., "Fixing data augmentation to improve
      adversarial robustness", 2021, and the code of Gowal et al. (2020).

    Guarantees:
      Each pixel comes from one of the two images, and `kept` is the exact fraction of the area.

    >>> white, black = jnp.ones((8, 8, 1)), jnp.zeros((8, 8, 1))
    >>> mixed, kept = jax.jit(rj.data.cutmix)(jax.random.key(0), white, black)
    >>> bool(mixed.mean() == kept)
    True
    """
    size = jnp.array(image.shape[:2])
    size_key, place_key = jax.random.split(key)
    half = jnp.floor(size * jnp.sqrt(jax.random.uniform(size_key)) / 2).astype(jnp.int32)
    middle = jax.random.randint(place_key, (2,), 0, size)
    low, high = jnp.maximum(middle - half, 0), jnp.minimum(middle + half, size)
    row, column = jnp.indices(image.shape[:2])
    inside = (row >= low[0]) & (row < high[0]) & (column >= low[1]) & (column < high[1])
    kept = 1 - jnp.prod(high - low) / (image.shape[0] * image.shape[1])
    return jnp.where(inside[..., None], other, image), kept
