"""TRADES: clean accuracy plus agreement with the neighbourhood (Zhang et al., ICML 2019)."""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

from robustjax import losses
from robustjax.attacks import PGD, Gaussian
from robustjax.config import check_number, config
from robustjax.training.methods.base import Aux, Batch, Crafted, Method, accuracy
from robustjax.training.net import Net

KL_ATTACK = PGD(start=Gaussian(1e-3), loss=losses.kl)
"""Maximises KL(p(x) || p(x_adv)); the start must not be x, where that gradient is zero."""


@config
class TRADES(Method):
    """min E CE(z(x), t) + beta KL(p(x) || p(x_adv)), x_adv maximising the KL.

    Gradients flow through both p(x) and p(x_adv). The clean forward commits BatchNorm statistics
    first, the adversarial one second.

    Attributes:
      beta: weight of the KL term (1 / lambda in the paper).
      attack: its target is z(x) under running statistics.

    References: Zhang et al., ICML 2019, eq. (5).
    """

    beta: float = 6.0
    attack: PGD = KL_ATTACK

    def __post_init__(self):
        check_number("beta", self.beta)

    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """Move the prediction as far from the clean one as the threat allows."""
        clean = net.logits(params, batch.image)
        return Crafted(
            *net.craft(self.attack, params, keys, batch.image, batch.label, target=clean)
        )

    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        """CE + beta KL."""
        clean, adversarial, aux = forward_pair(net, params, batch, crafted)
        natural = jax.vmap(losses.cross_entropy)(clean, batch.target).mean()
        kl = jax.vmap(losses.kl)(adversarial, clean).mean()
        return natural + self.beta * kl, aux


def forward_pair(
    net: Net, params: Any, batch: Batch, crafted: Crafted
) -> tuple[jax.Array, jax.Array, Aux]:
    """Train-mode logits of the clean and the adversarial images, committed in this order."""
    clean, stats = net.train(params, batch.image)
    adversarial, stats = net.train(params, crafted.x_adv, stats)
    metrics = {
        "accuracy": accuracy(clean, batch.label),
        "robust_accuracy": accuracy(adversarial, batch.label),
    }
    return clean, adversarial, Aux(stats, lax.stop_gradient(metrics))
