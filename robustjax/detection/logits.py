"""Detectors that read the logits z of one forward pass; F = softmax(z), yhat = argmax z."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.config import config, number
from robustjax.detection.detector import Detector
from robustjax.deterministic import largest, log_probabilities, log_sum_exp, ordered_sum, others
from robustjax.losses import confidence_odds
from robustjax.outputs import float_logits
from robustjax.typing import LogitsFn


@config
class Confidence(Detector):
    """log(F_yhat / (1 - F_yhat)), the log-odds of the confidence max_i F_i.

    In float32 the confidence itself is 1 for most images of a good classifier, and ties spoil any
    threshold. `jax.nn.sigmoid(score)` is the confidence.

    Guarantees:
      Grows with the confidence, and still tells apart those that round to 1.

    >>> float(rj.detection.Confidence().statistics((), lambda x: x, jnp.array([30.0, 0.0])))
    30.0
    """

    @override
    def statistics(self, learned: Any, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        return confidence_odds(float_logits(logits_fn(x)))


@config
class Entropy(Detector):
    """sum_i F_i log F_i, the negative entropy of the prediction: 0 if certain, -log K if uniform.

    >>> score = rj.detection.Entropy().statistics((), lambda x: x, jnp.zeros(10))
    >>> round(float(score), 3)
    -2.303
    """

    @override
    def statistics(self, learned: Any, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        return -entropy(log_probabilities(float_logits(logits_fn(x))))


@config
class NonME(Detector):
    """Non-maximal entropy, -sum_{i != yhat} G_i log G_i with G = F / sum_{i != yhat} F_i.

    G is the softmax of the other logits, so nothing underflows as it does in the probabilities
    that the paper's code works with.

    References: Pang et al., "Towards robust detection of adversarial examples", 2018, Sec. 3.1.

    Guarantees:
      Between 0 and log(K - 1), the value for equal other logits; 0 for K = 2.

    >>> score = rj.detection.NonME().statistics((), lambda x: x, jnp.array([9.0, 1.0, 1.0]))
    >>> round(float(score), 3)
    0.693
    """

    @override
    def statistics(self, learned: Any, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        return entropy(log_probabilities(others(float_logits(logits_fn(x)))))


@config
class Energy(Detector):
    """T log sum_i exp(z_i / T), the negative free energy.

    Args:
      temperature: T.

    References: Liu et al., "Energy-based out-of-distribution detection", 2020, Eq. 4.

    >>> float(rj.detection.Energy().statistics((), lambda x: x, jnp.array([30.0, 0.0])))
    30.0
    """

    temperature: float = number(default=1.0, low=1e-6)

    @override
    def statistics(self, learned: Any, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        logits = float_logits(logits_fn(x))
        return self.temperature * log_sum_exp(logits / self.temperature)


@config
class MaxMargin(Detector):
    """z_(1) - z_(2), the lead of the predicted class over the next one.

    >>> float(rj.detection.MaxMargin().statistics((), lambda x: x, jnp.array([3.0, 1.0, 0.0])))
    2.0
    """

    @override
    def statistics(self, learned: Any, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        logits = float_logits(logits_fn(x))
        return largest(logits) - largest(others(logits))


@config
class CenterDistance(Detector):
    """max_i z_i: for a distance head, -1/2 the squared distance to the nearest class center.

    For heads such as 'max-mahalanobis', whose logits are -1/2 ||z - mu_i||^2. For a softmax
    classifier it is the largest logit.

    >>> float(rj.detection.CenterDistance().statistics((), lambda x: x, jnp.array([-8.0, -0.5])))
    -0.5
    """

    @override
    def statistics(self, learned: Any, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        return largest(float_logits(logits_fn(x)))


def entropy(log_p: jax.Array) -> jax.Array:
    """-sum_i p_i log p_i of log-probabilities (n,)."""
    return -ordered_sum(jnp.exp(log_p) * log_p)
