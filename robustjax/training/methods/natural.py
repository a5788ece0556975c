"""Training on clean images: the reference point."""

from __future__ import annotations

from typing import Any

import jax

from robustjax import losses
from robustjax.config import config, static
from robustjax.training.methods.base import Aux, Batch, Crafted, Method, accuracy
from robustjax.training.net import Net
from robustjax.typing import Loss


@config
class Natural(Method):
    """min E L(z(x), t)."""

    objective: Loss = static(losses.cross_entropy)

    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """No perturbation."""
        return Crafted(batch.image, net.stats)

    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        """L on the clean images."""
        logits, stats = net.train(params, crafted.x_adv)
        loss = jax.vmap(self.objective)(logits, batch.target).mean()
        return loss, Aux(stats, {"accuracy": accuracy(logits, batch.label)})
