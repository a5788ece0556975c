"""Training on clean images: the reference point."""

from __future__ import annotations

from typing import Any

import jax
from typing_extensions import override

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
    """min E CE(z(x), t).

    >>> Natural().on_clean
    True
    """

    @property
    @override
    def on_clean(self) -> bool:
        return True

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        return Crafted(batch.image, net.stats)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        logits, stats = net.train(params, crafted.x_adv)
        loss = cross_entropy(net, logits, batch).mean()
        return loss, Aux(stats, {"accuracy": accuracy(logits, batch.label)})
