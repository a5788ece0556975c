"""MART: misclassified examples weigh more in the regulariser (Wang et al., ICLR 2020)."""

from __future__ import annotations

import functools
from typing import Any

import jax
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.config import config, number
from robustjax.training.methods.base import Aux, Batch, Crafted, label_margin
from robustjax.training.methods.pgd_at import OnAttack
from robustjax.training.methods.trades import ATTACK, OnPair, forward_pair
from robustjax.training.net import Net


@config
class MART(OnPair, OnAttack):
    """min E BCE(z(x_adv), t) + beta KL(p(x) || p(x_adv)) (1 - p_y(x)), BCE = CE plus a margin term.

    BCE(z, y) = CE(z, y) - log(1 - max_{k != y} p_k). Nothing is detached: the weight carries a
    gradient too. The logarithms are exact, where the authors' code adds small constants.

    Attributes:
      beta: weight of the KL; 6 in the authors' code for WRN-34-10, 5 for ResNet-18.
      attack: on the cross-entropy, from near x.

    References: Wang et al., "Improving adversarial robustness requires revisiting misclassified
      examples", ICLR 2020, Eq. 11.

    >>> MART(beta=5.0).loss_cost
    Cost(forwards=2, backwards=2)
    """

    attack: PGD = ATTACK
    beta: float = number(default=6.0)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        clean, adversarial, aux = forward_pair(net, params, batch, crafted)
        given = {"target": batch.target, "margin": label_margin(net, batch)}
        loss = functools.partial(losses.mart, beta=self.beta)
        return jax.vmap(loss)(clean, adversarial, batch.label, **given).mean(), aux
