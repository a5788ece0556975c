"""Self-adaptive training: targets that learn from the model (Huang et al., NeurIPS 2020)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.config import config, number
from robustjax.training.methods.base import Aux, Batch, Crafted, cross_entropy
from robustjax.training.methods.trades import ATTACK, TRADES, OnPair, check_start, forward_pair
from robustjax.training.net import Net
from robustjax.typing import Cost


@config
class SAT(OnPair):
    """TRADES whose clean term aims at a moving average of the model's own predictions.

    From `start` on: t_i <- momentum t_i + (1 - momentum) p(x_i), then
    loss = mean_i w_i CE(z(x_i), t_i) + beta KL(p(x_i) || p(x_adv_i)), w_i ~ max_k t_ik, mean 1.
    Neither t nor w carries a gradient. Before `start` it is TRADES. Its rows are the t_i (N, K).

    Attributes:
      beta: weight of the KL term.
      momentum: of the targets.
      start: fraction of training; keep it before the first drop of the learning rate.
      attack: as in TRADES.

    References: Huang et al., NeurIPS 2020, algorithm 2 (adversarial training).
    """

    beta: float = number(default=6.0)
    momentum: float = number(default=0.9, low=0, high=1)
    start: float = number(default=0.7, low=0, high=1)
    attack: PGD = ATTACK

    def __post_init__(self):
        check_start(self.attack)

    def init_rows(self, labels: jax.Array, num_classes: int) -> jax.Array:
        """One-hot targets (N, K)."""
        return jax.nn.one_hot(labels, num_classes)

    @property
    def craft_cost(self) -> Cost:
        """The attack's, and the clean prediction."""
        return Cost(self.attack.cost.forwards + 1, self.attack.cost.backwards)

    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """As TRADES."""
        return TRADES(attack=self.attack).perturb(net, params, batch, keys)

    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        """Weighted CE to the moved targets + beta KL."""
        clean, adversarial, aux = forward_pair(net, params, batch, crafted)
        adapt = net.progress > self.start
        predicted = jax.nn.softmax(lax.stop_gradient(clean))
        moved = self.momentum * batch.rows + (1 - self.momentum) * predicted
        rows = jnp.where(adapt, moved, batch.rows)
        confidence = rows.max(-1)
        weight = jnp.where(adapt, confidence / net.mean(confidence.mean()), 1.0)
        aimed = batch.replace(target=jnp.where(adapt, rows, batch.target))
        natural = (weight * cross_entropy(net, clean, aimed)).mean()
        kl = jax.vmap(losses.kl)(adversarial, clean).mean()
        return natural + self.beta * kl, aux.replace(rows=rows)
