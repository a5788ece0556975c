"""Adversarial logit pairing, and the plain mixture of clean and adversarial losses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks import PGD
from robustjax.config import config, number
from robustjax.training.methods.base import Aux, Batch, Crafted, cross_entropy
from robustjax.training.methods.pgd_at import OnAttack
from robustjax.training.methods.trades import ATTACK, OnPair, forward_pair
from robustjax.training.net import Net


@config
class ALP(OnPair, OnAttack):
    """min E clean CE(z(x), t) + (1 - clean) CE(z(x_adv), t) + weight mean_k (z(x) - z(x_adv))_k^2.

    Without the last term it is the mixture of clean and adversarial examples, half and half in
    Goodfellow et al. (2015) and in "Bag of Tricks" (Pang et al. 2021).

    Attributes:
      clean: share of the clean cross-entropy.
      weight: of the pairing; 0.5 in the code of hypersphere embedding (Pang et al. 2020).
      attack: on the cross-entropy, from near x.

    References: Kannan et al., "Adversarial logit pairing", 2018.

    >>> ALP(weight=0.0).loss_cost  # the mixture: a clean and an adversarial pass
    Cost(forwards=2, backwards=2)
    """

    attack: PGD = ATTACK
    clean: float = number(default=0.5, low=0, high=1)
    weight: float = number(default=0.5)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        clean, adversarial, aux = forward_pair(net, params, batch, crafted)
        natural = cross_entropy(net, clean, batch).mean()
        robust = cross_entropy(net, adversarial, batch).mean()
        pairing = jnp.mean((clean - adversarial) ** 2)
        return self.clean * natural + (1 - self.clean) * robust + self.weight * pairing, aux
