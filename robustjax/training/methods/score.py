"""SCORE: TRADES in squared distances of probabilities (Pang et al., ICML 2022)."""

from __future__ import annotations

from typing import Any

import jax

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.config import config, number, static
from robustjax.training.methods.base import Aux, Batch, Crafted
from robustjax.training.methods.pgd_at import BNMode
from robustjax.training.methods.trades import (
    ATTACK,
    OnPair,
    check_start,
    clean_logits,
    depart,
    forward_pair,
)
from robustjax.training.net import Net
from robustjax.typing import Cost


@config
class SCORE(OnPair):
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
    """

    beta: float = number(default=4.0)
    slack: float = number(default=0.0)
    attack: PGD = ATTACK
    bn: BNMode = static(default="running")

    def __post_init__(self):
        check_start(self.attack)

    @property
    def craft_cost(self) -> Cost:
        """The attack's, and the clean prediction."""
        return Cost(self.attack.cost.forwards + 1, self.attack.cost.backwards)

    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """Move the prediction as far from the clean one as the threat allows."""
        clean = jax.nn.softmax(clean_logits(net, params, batch, self.bn))
        return depart(net, self.attack, params, batch, keys, losses.brier, clean, self.bn)

    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        """Both squared distances."""
        clean, adversarial, aux = forward_pair(net, params, batch, crafted)
        natural = jax.vmap(losses.brier)(clean, batch.target).mean()
        moved = jax.vmap(losses.brier)(adversarial, jax.nn.softmax(clean))
        return natural + self.beta * jax.nn.relu(moved - self.slack).mean(), aux
