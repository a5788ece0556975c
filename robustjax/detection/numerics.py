"""Logits and distances in float32 without saturation; no last bit depends on the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from robustjax.deterministic import ordered_sum, spread

CHUNK = 2**17
"""Numbers of a table of differences at a time."""


def others(logits: jax.Array) -> jax.Array:
    """All logits but the largest, in their order: (K,) -> (K - 1,)."""
    rest = jnp.arange(logits.size - 1)
    return logits[rest + (rest >= jnp.argmax(logits))]


def log_sum_exp(values: jax.Array) -> jax.Array:
    """log sum_i exp v_i of values (n,), of which some may be -inf but not all."""
    top = jax.lax.stop_gradient(jnp.max(values))
    return top + jnp.log(ordered_sum(jnp.exp(values - top)))


def log_probabilities(logits: jax.Array) -> jax.Array:
    """log softmax, (K,) -> (K,).

    Guarantees:
      The largest, -log1p(sum of the other odds), is not rounded to 0 before the odds underflow.
    """
    gap = logits - logits[jnp.argmax(logits)]
    return gap - jnp.log1p(ordered_sum(jnp.exp(others(gap))))


def squared_distances(x: jax.Array, points: jax.Array) -> jax.Array:
    """||x - p_i||^2, from the differences, a chunk of points at a time.

    Args:
      x: (D,).
      points: (n, D).

    Returns:
      (n,).

    Guarantees:
      Zero exactly where x is the point, and nowhere negative.
    """
    size = max(1, min(len(points), CHUNK // x.size))
    chunks = -(-len(points) // size)
    padded = jnp.pad(points, ((0, chunks * size - len(points)), (0, 0)))

    @jax.checkpoint  # a gradient forms the differences again instead of keeping all of them
    def distances(chunk):
        return ordered_sum(((spread(x, size) - chunk) ** 2).T)

    found = jax.lax.map(distances, padded.reshape(chunks, size, x.size))
    return found.reshape(-1)[: len(points)]
