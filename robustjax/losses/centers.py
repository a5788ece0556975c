"""Losses on the distances to class centers: logits h_i = -||z - mu_i||^2 / 2 in, a scalar out."""

from __future__ import annotations

import jax

from robustjax.losses.output import of_logits


@of_logits
def mmc(logits: jax.Array, label: jax.Array) -> jax.Array:
    """-h_y = ||z - mu_y||^2 / 2: how far the features are from the center of their class."""
    return -logits[label]
