"""Reverse cross-entropy: training that makes all wrong classes equally unlikely."""

from __future__ import annotations

from typing import Any

import jax
from typing_extensions import override

from robustjax import losses
from robustjax.config import config, number
from robustjax.training.methods.gsce import HeadMethod


@config
class RCE(HeadMethod):
    """min E RCE(h(x), t): certain of the label, and indifferent between the wrong classes.

    The model's logits are those of the test, -Z in the paper: see `losses.rce`. Detectors read the
    rest of the probabilities: non-ME, and the density of the features.

    Attributes:
      feature_dim: none, as in the paper: the features are the pooled ones.

    References: Pang et al., "Towards robust detection of adversarial examples", NeurIPS 2018. They
      train on clean images; the `adversarial` options are the ones of the g-SCE family's paper.

    >>> round(float(RCE().criterion(jnp.zeros(3), 0)), 3)
    1.099
    """

    head = "linear"
    feature_dim: int | None = number(default=None, low=1, static=True)

    @override
    def criterion(self, output: Any, target: jax.Array) -> jax.Array:
        return losses.rce(output, target)
