"""Unsupervised adversarial training, online targets (Alayrac et al., NeurIPS 2019)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.config import config, number, static
from robustjax.training.methods.base import Aux, Batch, Crafted, cross_entropy
from robustjax.training.methods.pgd_at import OnAttack
from robustjax.training.methods.trades import ATTACK, OnPair, forward_pair
from robustjax.training.net import Net


@config
class UAT(OnPair, OnAttack):
    """min E CE(z(x_adv), t) + weight KL(p(x) || p(x_adv)), p(x) without a gradient.

    The clean prediction is the online target. The first mean is over the labelled examples (UAT-OT)
    or, with fixed targets from another model, over the extra ones as well (UAT++); without the KL
    that is UAT-FT, PGD-AT with extra data. The authors published no training code: the weight and
    the attack are our defaults.

    Attributes:
      weight: of the KL.
      fixed: whether extra examples have fixed targets that count (UAT++).
      attack: on the cross-entropy, from near x.

    References: Alayrac et al., "Are labels required for improving adversarial robustness?",
      NeurIPS 2019, section 3.

    >>> UAT(fixed=True).loss_cost  # UAT++
    Cost(forwards=2, backwards=2)
    """

    attack: PGD = ATTACK
    weight: float = number(default=5.0)
    fixed: bool = static(default=False)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        clean, adversarial, aux = forward_pair(net, params, batch, crafted)
        counts = jnp.ones(len(batch.label)) if self.fixed else jnp.float32(batch.source == 0)
        share = jnp.maximum(net.mean(counts.mean()), 1e-6)  # a slice may have no labelled example
        supervised = counts / share * cross_entropy(net, adversarial, batch)
        kl = jax.vmap(losses.kl)(adversarial, lax.stop_gradient(clean))
        return (supervised + self.weight * kl).mean(), aux
