"""Training on clean images: the reference point."""

from __future__ import annotations

from typing import Any

import jax

from robustjax.config import config
from robustjax.training.methods.base import (
    Aux,
    Batch,
    Crafted,
    Method,
    accuracy,
    cross_entropy,
)
from robustjax.training.net import Net


@config
class Natural(Method):
    """min E CE(z(x), t)."""

    @property
    def on_clean(self) -> bool:
        """It does."""
        return True

    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """No perturbation."""
        return Crafted(batch.image, net.stats)

    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        """CE on the clean images."""
        logits, stats = net.train(params, crafted.x_adv)
        loss = cross_entropy(net, logits, batch).mean()
        return loss, Aux(stats, {"accuracy": accuracy(logits, batch.label)})
