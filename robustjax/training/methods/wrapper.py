"""A method around a method: all of the inner one, but for what the wrapper changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from robustjax.training.methods.base import (
    Action,
    Aux,
    Batch,
    Crafted,
    Descend,
    Gradients,
    Method,
    check_type,
)
from robustjax.training.methods.trades import TRADES
from robustjax.training.net import Net
from robustjax.training.state import TrainState
from robustjax.typing import Cost

INNER = TRADES()


@dataclasses.dataclass(frozen=True)
class Wrapper(Method):
    """The inner method."""

    inner: Method = INNER

    def __post_init__(self):
        check_type("inner", self.inner, Method)

    @property
    def model(self) -> dict[str, Any]:
        """The inner method's."""
        return self.inner.model

    @property
    def on_clean(self) -> bool:
        """The inner method's."""
        return self.inner.on_clean

    @property
    def craft_cost(self) -> Cost:
        """The inner method's."""
        return self.inner.craft_cost

    @property
    def loss_cost(self) -> Cost:
        """The inner method's."""
        return self.inner.loss_cost

    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """The inner method's."""
        return self.inner.perturb(net, params, batch, keys)

    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        """The inner method's."""
        return self.inner.loss(net, params, batch, crafted)

    def init_rows(self, labels: jax.Array, num_classes: int) -> Any:
        """The inner method's."""
        return self.inner.init_rows(labels, num_classes)

    def init_slot(self, images: jax.Array) -> Any:
        """The inner method's."""
        return self.inner.init_slot(images)

    def init_frozen(self, image_shape: Sequence[int], num_classes: int) -> Any:
        """The inner method's."""
        return self.inner.init_frozen(image_shape, num_classes)

    def control(self, scores: Sequence[float]) -> tuple[Method, Action]:
        """The inner method's."""
        inner, action = self.inner.control(scores)
        return dataclasses.replace(self, inner=inner), action

    def grads(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> Gradients:
        """The inner method's."""
        return self.inner.grads(net, params, batch, crafted)

    def update(
        self, net: Net, descend: Descend, state: TrainState, batch: Batch, keys: jax.Array
    ) -> tuple[TrainState, Aux]:
        """The inner method's."""
        return self.inner.update(net, descend, state, batch, keys)

    @property
    def innermost(self) -> Method:
        """The method that wraps none."""
        return self.inner.innermost if isinstance(self.inner, Wrapper) else self.inner
