"""GradNorm: the size of the gradient that pulls the prediction towards the uniform one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.config import config, number
from robustjax.detection.detector import Detector
from robustjax.deterministic import log_probabilities, ordered_sum
from robustjax.outputs import features_of, float_logits
from robustjax.typing import LogitsFn


@config
class GradNorm(Detector):
    """||d CE(1/K, softmax(z / T)) / dW||_1 of the last layer z = W f + b.

    The gradient is an outer product, so its norm is ||softmax(z / T) - 1/K||_1 ||f||_1 / T, and
    nothing needs a backward pass. A head that is not linear gets the same number.

    Args:
      temperature: T.

    References: Huang et al., "On the importance of gradients for detecting distributional shifts in
    the wild", 2021, Eq. 2 and Sec. 4.

    Guarantees:
      Equal to the norm of the gradient, up to rounding, where the head is linear.
      Zero at equal logits and positive elsewhere, if any feature is not zero.

    >>> output = {"logits": jnp.zeros(4), "features": jnp.ones(8)}
    >>> float(rj.detection.GradNorm().statistics((), lambda x: output, None))
    0.0
    """

    temperature: float = number(default=1.0, low=1e-6)

    @override
    def statistics(self, learned: Any, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        output = logits_fn(x)
        p = jnp.exp(log_probabilities(float_logits(output) / self.temperature))
        pull = ordered_sum(jnp.abs(p - 1 / p.size)) / self.temperature
        return pull * ordered_sum(jnp.abs(features_of(output).astype(jnp.float32)))
