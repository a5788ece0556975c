"""Self-adaptive training: targets that learn from the model (Huang et al., NeurIPS 2020)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.config import config, number
from robustjax.training.methods.base import Aux, Batch, Crafted, cross_entropy
from robustjax.training.methods.trades import ATTACK, OnPrediction, forward_pair
from robustjax.training.net import Net


@config
class SAT(OnPrediction):
    """TRADES whose clean target is a moving average of the model's own predictions.

    From `start` on: t_i <- momentum t_i + (1 - momentum) p(x_i), then
    loss = mean_i w_i CE(z(x_i), t_i) + beta KL(p(x_i) || p(x_adv_i)), w_i ~ max_k t_ik, mean 1.
    Neither t nor w carries a gradient. Before `start` it is TRADES. Its rows are the t_i (N, K).

    Attributes:
      beta: weight of the KL term.
      momentum: of the targets.
      start: fraction of training; keep it before the first drop of the learning rate.
      attack: as in TRADES.

    References: Huang et al., NeurIPS 2020, algorithm 2 (adversarial training).

    >>> SAT().init_rows(jnp.array([1]), num_classes=3)  # targets
    Array([[0., 1., 0.]], dtype=float32)
    """

    beta: float = number(default=6.0)
    momentum: float = number(default=0.9, low=0, high=1)
    start: float = number(default=0.7, low=0, high=1)
    attack: PGD = ATTACK

    @override
    def init_rows(self, labels: jax.Array, num_classes: int) -> jax.Array:
        return jax.nn.one_hot(labels, num_classes)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        clean, adversarial, aux = forward_pair(net, params, batch, crafted)
        adapt = net.progress > self.start
        predicted = jax.nn.softmax(lax.stop_gradient(clean))
        moved = self.momentum * batch.rows + (1 - self.momentum) * predicted
        rows = jnp.where(adapt, moved, batch.rows)
        confidence = rows.max(-1)
        weight = jnp.where(adapt, confidence / net.mean(confidence.mean()), 1.0)
        moving = batch.replace(target=jnp.where(adapt, rows, batch.target))
        natural = (weight * cross_entropy(net, clean, moving)).mean()
        kl = jax.vmap(losses.kl)(adversarial, clean).mean()
        return natural + self.beta * kl, aux.replace(rows=rows)
