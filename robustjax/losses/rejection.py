"""Confidences as log-odds, which do not saturate: that of a prediction, and a rectified one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from robustjax.deterministic import largest, log_sum_exp, others


def confidence_odds(logits: jax.Array) -> jax.Array:
    """log(F_m / (1 - F_m)), F_m = max_i softmax(logits)_i: (K,) -> ()."""
    return largest(logits) - log_sum_exp(others(logits))


def rectified_odds(confidence: jax.Array, auxiliary: jax.Array) -> jax.Array:
    """log(R / (1 - R)) of the rectified confidence R = sigmoid(confidence) sigmoid(auxiliary).

    (1 - R) / R = exp(-c) + exp(-a) + exp(-c - a).

    Args:
      confidence: c, the log-odds of the confidence ().
      auxiliary: a, those of the auxiliary head ().

    References: Pang et al., "Two coupled rejection metrics can tell adversarial examples apart",
      CVPR 2022: R-Con.

    Guarantees:
      Below both, and finite wherever they are; it grows with each.
    """
    return -jnp.logaddexp(jnp.logaddexp(-confidence, -auxiliary), -confidence - auxiliary)
