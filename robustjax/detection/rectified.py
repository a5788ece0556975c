"""Rectified rejection: the confidence, corrected by an auxiliary head."""

from __future__ import annotations

from typing import Any

import jax
from typing_extensions import override

from robustjax.config import config
from robustjax.detection.detector import Detector
from robustjax.losses import confidence_odds, rectified_odds
from robustjax.outputs import auxiliary_of, float_logits
from robustjax.typing import LogitsFn


@config
class Rectified(Detector):
    """log(R / (1 - R)) of the rectified confidence R = F_yhat A, A the auxiliary head's.

    The method `rr` trains the head so that R is near the probability of the true label, the true
    confidence. `jax.nn.sigmoid(score)` is R, and a score of 0 is the paper's threshold of 1/2; for
    its guarantee see `theory.rejection_slack`.

    References: Pang et al., "Two coupled rejection metrics can tell adversarial examples apart",
    CVPR 2022.

    Guarantees:
      At most the score of `Confidence`, up to rounding.

    >>> output = {"logits": jnp.array([30.0, 0.0]), "auxiliary": jnp.array(1.0)}
    >>> round(float(rj.detection.Rectified().statistics((), lambda x: output, None)), 3)
    1.0
    """

    @override
    def statistics(self, learned: Any, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        output = logits_fn(x)
        return rectified_odds(confidence_odds(float_logits(output)), auxiliary_of(output))
