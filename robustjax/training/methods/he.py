"""Hypersphere embedding, a wrapper: cosines as logits, and an angular margin in the loss."""

from __future__ import annotations

from typing import Any

import jax
from typing_extensions import override

from robustjax.config import config, number
from robustjax.training.methods.base import Aux, Batch, Crafted, Descend, Gradients
from robustjax.training.methods.wrapper import Wrapper
from robustjax.training.net import Net
from robustjax.training.state import TrainState


@config
class HE(Wrapper):
    """The inner method on logits scale * cos(theta), its CE on scale * (cos(theta) - margin 1_y).

    theta is the angle between the features and a class's weights. The margin is in the
    cross-entropy of training alone: neither attacks nor other terms of a loss see it. The scale is
    part of the model, so that predictions and every attack work on the same logits.

    Attributes:
      inner: the method that is wrapped.
      scale: s; 10 or 15 for PGD-AT, 15 for TRADES and 20 for ALP in the authors' code.
      margin: m; 0.2, for ALP 0.3.

    References: Pang et al., "Boosting adversarial training with hypersphere embedding", NeurIPS
      2020, Eq. 9.

    Raises:
      ValueError: the inner method needs a head of its own.

    >>> HE(rj.training.TRADES(), scale=15.0).model
    {'head': 'cosine', 'scale': 15.0}
    """

    scale: float = number(default=15.0, static=True)
    margin: float = number(default=0.2)

    def __post_init__(self):
        if "head" in self.inner.model:
            raise ValueError(
                f"HE sets the cosine head, but {type(self.inner).__name__} needs a head of its "
                f"own, {self.inner.model['head']!r}: wrap a method without one, such as TRADES"
            )

    @property
    @override
    def model(self) -> dict[str, Any]:
        return self.inner.model | {"head": "cosine", "scale": self.scale}

    def with_margin(self, net: Net) -> Net:
        """The net with the margin."""
        return net.replace(margin=self.scale * self.margin)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        return self.inner.loss(self.with_margin(net), params, batch, crafted)

    @override
    def grads(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> Gradients:
        return self.inner.grads(self.with_margin(net), params, batch, crafted)

    @override
    def update(
        self, net: Net, descend: Descend, state: TrainState, batch: Batch, keys: jax.Array
    ) -> tuple[TrainState, Aux]:
        return super().update(self.with_margin(net), descend, state, batch, keys)
