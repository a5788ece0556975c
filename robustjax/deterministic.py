"""Sums whose last bits do not depend on what else is in the batch, and a safe maximum."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def ordered_sum(values: jax.Array) -> jax.Array:
    """Sum over the leading axis, pairwise and in one fixed order.

    XLA orders a reduction by the size of the whole tile, so that an example's last bits, and after
    a few steps its adversarial image, would depend on how many others are attacked beside it.
    """
    # Padded once: a pad at every level took XLA three times as long to compile.
    size = 1 << (len(values) - 1).bit_length()
    values = jnp.pad(values, [(0, size - len(values))] + [(0, 0)] * (values.ndim - 1))
    while len(values) > 1:
        half = len(values) // 2
        values = values[:half] + values[half:]
    return values[0]


def spread(value: jax.Array, n: int) -> jax.Array:
    """`value` n times along a new leading axis; its gradient is an ordered sum over that axis.

    The gradient of `jnp.broadcast_to` would be a reduction, see `ordered_sum`.
    """
    copies = value[None]
    while len(copies) < n:
        copies = jnp.concatenate([copies, copies])
    return copies[:n]


def largest(values: jax.Array) -> jax.Array:
    """The maximum of values (n,); its gradient goes to the first of those that are largest.

    That of `jnp.max` goes to all entries that equal the maximum. Where XLA computes one of the two
    a second time and rounds it otherwise, there are none, and the gradient is 0 / 0.
    """
    first = jnp.arange(values.size) == jnp.argmax(values)
    return jnp.sum(jnp.where(first, values, 0))
