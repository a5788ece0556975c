"""Squared distances to many points; no last bit depends on the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from robustjax.deterministic import ordered_sum, spread

CHUNK = 2**17
"""How many numbers a table of differences holds at a time."""


def squared_distances(x: jax.Array, points: jax.Array) -> jax.Array:
    """||x - p_i||^2, from the differences, a chunk of points at a time.

    Args:
      x: (D,).
      points: (n, D).

    Returns:
      (n,).

    Guarantees:
      Zero exactly where x is the point, and nowhere negative.

    >>> squared_distances(jnp.array([1.0, 0.0]), jnp.array([[1.0, 0.0], [4.0, 4.0]])).tolist()
    [0.0, 25.0]
    """
    size = max(1, min(len(points), CHUNK // x.size))
    chunks = -(-len(points) // size)
    padded = jnp.pad(points, ((0, chunks * size - len(points)), (0, 0)))

    @jax.checkpoint  # a gradient forms the differences again instead of keeping all of them
    def distances(chunk):
        return ordered_sum(((spread(x, size) - chunk) ** 2).T)

    found = jax.lax.map(distances, padded.reshape(chunks, size, x.size))
    return found.reshape(-1)[: len(points)]
