"""SCORE: TRADES in squared distances of probabilities (Pang et al., ICML 2022)."""

from __future__ import annotations

from typing import Any

import jax
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.config import config, number, static
from robustjax.training.methods.base import Aux, Batch, Crafted
from robustjax.training.methods.pgd_at import BNMode
from robustjax.training.methods.trades import ATTACK, TRADES, OnPrediction, forward_pair
from robustjax.training.net import Net


@config
class SCORE(OnPrediction):
    """min E ||p(x) - t||^2 + beta [||p(x_adv) - p(x)||^2 - slack]_+, x_adv maximising the second.

    A distance obeys the triangle inequality, the KL does not: clean accuracy and robustness are
    then no longer at odds by definition.

    Attributes:
      beta: weight of the second term; 4 in the authors' code, 3 for their released models.
      slack: the squared distance that costs nothing.
      attack: as in TRADES, on the squared distance.
      bn: as in TRADES.

    References: Pang et al., "Robustness and accuracy could be reconcilable by (proper) definition",
      ICML 2022 (LSE-TRADES).

    >>> SCORE(beta=3.0).craft_cost == TRADES().craft_cost
    True
    """

    beta: float = number(default=4.0)
    slack: float = number(default=0.0)
    attack: PGD = ATTACK
    bn: BNMode = static(default="running")

    @property
    @override
    def crafting(self) -> TRADES:
        return TRADES(attack=self.attack, bn=self.bn, consistency=squared_distance)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        clean, adversarial, aux = forward_pair(net, params, batch, crafted)
        natural = jax.vmap(losses.brier)(clean, batch.target).mean()
        apart = jax.vmap(squared_distance)(adversarial, clean)
        return natural + self.beta * jax.nn.relu(apart - self.slack).mean(), aux


def squared_distance(logits: jax.Array, reference: jax.Array) -> jax.Array:
    """||p - q||^2, the probabilities being those of two logits (K,)."""
    return losses.brier(logits, jax.nn.softmax(reference))
