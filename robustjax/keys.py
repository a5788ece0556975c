"""Random keys of the one kind whose draws do not depend on the batch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

KIND = "threefry2x32"
"""The draws of other kinds (rbg, unsafe_rbg) differ under `jax.vmap` and from device to device."""


def seeded(seed: int) -> jax.Array:
    """A threefry key, whatever `jax_default_prng_impl` says.

    >>> bool((seeded(3) == jax.random.key(3)).all())
    True
    """
    return jax.random.key(seed, impl=KIND)


def threefry(key: Any) -> jax.Array:
    """A user's key as a threefry key; one of another kind is read as a seed of this one.

    Raises:
      ValueError: it is not one PRNG key.

    >>> jax.random.key_impl(threefry(jax.random.key(0, impl="rbg")))
    'threefry2x32'
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if not key.ndim and jax.random.key_impl(key) == KIND:
            return key
        words = jax.random.key_data(key)
    else:
        words = key  # perhaps jax.random.PRNGKey(0)
    raw = isinstance(words, jax.Array | np.ndarray) and words.dtype == np.uint32
    if not raw or words.shape not in ((2,), (4,)):
        raise ValueError(f"key must be one PRNG key, such as jax.random.key(0); got {key!r}")
    result = jax.random.wrap_key_data(jnp.asarray(words[:2]), impl=KIND)
    for word in words[2:]:
        result = jax.random.fold_in(result, word)
    return result
