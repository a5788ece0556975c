"""GradAlign: one attack step is enough where the gradient points one way (NeurIPS 2020)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.attacks.starts import Zero
from robustjax.config import config, number, static
from robustjax.training.methods.base import Aux, Batch, Crafted
from robustjax.training.methods.pgd_at import BNMode, OnAttack
from robustjax.training.net import Net
from robustjax.typing import Cost

ATTACK = PGD(steps=1, rel_step=1.25, start=Zero())
"""One step of 1.25 eps from the image, back in the ball."""


@config
class GradAlign(OnAttack):
    """min E CE(z(x_adv), t) + weight (1 - cos(g, g')), g = grad l at x, g' near x.

    g' is taken at a random point of the ball and alone carries a gradient, so input gradients are
    differentiated again. Images where either is zero are left out of the mean.

    Attributes:
      attack: FGSM with 1.25 eps; the random point comes from its threat.
      bn: 'commit', as in the authors' code.
      weight: lambda; 0.2 for Linf(8/255), exp(n ln(10) / 8 + ln(0.02)) for n/255 in their code.

    References: Andriushchenko & Flammarion, "Understanding and improving fast adversarial
      training", NeurIPS 2020, Eq. 5.

    >>> GradAlign(weight=0.2).attack.steps
    1
    """

    attack: PGD = ATTACK
    bn: BNMode = static(default="commit")
    weight: float = number(default=0.2)

    @property
    @override
    def loss_cost(self) -> Cost:
        # The adversarial pass, one at x, and about three at the random point.
        return Cost(5, 5)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """The attack's images, and in `extra` random points of the ball."""
        crafted = super().perturb(net, params, batch, keys)
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, NEARBY)
        return crafted.replace(extra=jax.vmap(self.attack.threat.sample)(keys, batch.image))

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:

        def objective(logits):
            return jax.vmap(losses.cross_entropy)(logits, batch.target)

        here, _, _ = net.image_gradient(params, batch.image, objective, "batch")
        there, _, stats = net.image_gradient(params, crafted.extra, objective, "commit")
        angle, counts = jax.vmap(misalignment)(lax.stop_gradient(here), there)
        counted = net.mean(counts.mean())
        ce, aux = super().loss(net.replace(stats=stats), params, batch, crafted)
        term = angle.mean() / jnp.maximum(counted, 1e-12)
        metrics = aux.metrics | {"misalignment": lax.stop_gradient(term)}
        return ce + self.weight * term, aux.replace(metrics=metrics)


NEARBY = 3
"""Folded into an example's key for its random point; no attack folds in this number."""


def misalignment(g: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(1 - cos(g, h), 1), or (0, 0) where one of them is zero."""
    gg, hh = jnp.sum(g**2), jnp.sum(h**2)
    counts = (gg > 0) & (hh > 0)
    gg, hh = jnp.where(counts, gg, 1), jnp.where(counts, hh, 1)
    angle = 1 - jnp.sum(g * h) / jnp.sqrt(gg) / jnp.sqrt(hh)
    return jnp.where(counts, angle, 0), counts
