"""Sums whose bits do not depend on the rest of the batch, and what stands on them: log-softmax."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def ordered_sum(values: jax.Array) -> jax.Array:
    """Sum over the leading axis, pairwise and in one fixed order.

    XLA orders a reduction by the size of the whole tile. With it, an example's last bits, and after
    a few steps its adversarial image, would depend on how many others are attacked beside it.

    >>> float(ordered_sum(jnp.arange(5.0)))
    10.0
    """
    # Padded once: a pad at every level took XLA three times as long to compile.
    size = 1 << (len(values) - 1).bit_length()
    values = jnp.pad(values, [(0, size - len(values))] + [(0, 0)] * (values.ndim - 1))
    while len(values) > 1:
        half = len(values) // 2
        values = values[:half] + values[half:]
    return values[0]


def spread(value: jax.Array, n: int) -> jax.Array:
    """Repeat `value` n times along a new leading axis; the gradient is an ordered sum.

    The gradient of `jnp.broadcast_to` is a reduction by XLA, whose order varies: see `ordered_sum`.

    >>> spread(jnp.array([1, 2]), 3).tolist()
    [[1, 2], [1, 2], [1, 2]]
    """
    copies = value[None]
    while len(copies) < n:
        copies = jnp.concatenate([copies, copies])
    return copies[:n]


def largest(values: jax.Array) -> jax.Array:
    """The maximum of values (n,); the gradient goes to the first of the largest.

    The gradient of `jnp.max` is shared by all entries that equal the maximum. If XLA recomputes one
    side of that comparison with other rounding, no entry is equal, and the gradient is 0 / 0.

    >>> jax.grad(largest)(jnp.array([1.0, 3.0, 3.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    first = jnp.arange(values.size) == jnp.argmax(values)
    return jnp.sum(jnp.where(first, values, 0))


def others(values: jax.Array) -> jax.Array:
    """All values but the first of the largest, in their order: (K,) -> (K - 1,).

    >>> others(jnp.array([1.0, 3.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    rest = jnp.arange(values.size - 1)
    return values[rest + (rest >= jnp.argmax(values))]


def log_sum_exp(values: jax.Array) -> jax.Array:
    """log sum_i exp v_i of values (n,), of which some may be -inf but not all.

    >>> float(log_sum_exp(jnp.array([1000.0, -jnp.inf])))
    1000.0
    """
    top = jax.lax.stop_gradient(jnp.max(values))
    return top + jnp.log(ordered_sum(jnp.exp(values - top)))


def log_probabilities(logits: jax.Array) -> jax.Array:
    """log softmax, (K,) -> (K,).

    Guarantees:
      The largest, -log1p(sum of the other odds), is not rounded to 0 before the odds underflow.

    >>> float(log_probabilities(jnp.array([0.0, 80.0]))[1]) < 0
    True
    """
    gap = logits - logits[jnp.argmax(logits)]
    return gap - jnp.log1p(ordered_sum(jnp.exp(others(gap))))
