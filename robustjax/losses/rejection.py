"""Confidences as log-odds, which do not saturate: a prediction's, and the rectified one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from robustjax.checks import checked
from robustjax.deterministic import largest, log_sum_exp, others


@checked(logits="K>1")
def confidence_odds(logits: jax.Array) -> jax.Array:
    """log(F_m / (1 - F_m)), F_m = max_i softmax(logits)_i: (K,) -> ().

    >>> float(confidence_odds(jnp.array([3.0, 1.0])))
    2.0
    """
    return largest(logits) - log_sum_exp(others(logits))


@checked(confidence="", auxiliary="")
def rectified_odds(confidence: jax.Array, auxiliary: jax.Array) -> jax.Array:
    """log(R / (1 - R)) of the rectified confidence R = sigmoid(confidence) sigmoid(auxiliary).

    (1 - R) / R = exp(-c) + exp(-a) + exp(-c - a).

    Args:
      confidence: c, the log-odds of the confidence ().
      auxiliary: a, the log-odds of the auxiliary head ().

    References: Pang et al., "Two coupled rejection metrics can tell adversarial examples apart",
      CVPR 2022: R-Con.

    Guarantees:
      Below both arguments, increasing in each, and finite if they are.

    >>> round(float(rectified_odds(2.0, 50.0)), 3), bool(rectified_odds(2.0, 0.0) < 0)
    (2.0, True)
    """
    return -jnp.logaddexp(jnp.logaddexp(-confidence, -auxiliary), -confidence - auxiliary)
