"""A method around a method, which delegates all that the wrapper does not change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from typing_extensions import override

from robustjax.training.methods.base import (
    Action,
    Aux,
    Batch,
    Crafted,
    Descend,
    Gradients,
    Method,
)
from robustjax.training.methods.trades import TRADES
from robustjax.training.net import Net
from robustjax.training.state import TrainState
from robustjax.typing import Cost

INNER = TRADES()


@dataclasses.dataclass(frozen=True)
class Wrapper(Method):
    """Delegates every part of a method to an inner one; subclasses override some."""

    inner: Method = INNER

    @property
    @override
    def model(self) -> dict[str, Any]:
        return self.inner.model

    @property
    @override
    def on_clean(self) -> bool:
        return self.inner.on_clean

    @property
    @override
    def craft_cost(self) -> Cost:
        return self.inner.craft_cost

    @property
    @override
    def loss_cost(self) -> Cost:
        return self.inner.loss_cost

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        return self.inner.perturb(net, params, batch, keys)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        return self.inner.loss(net, params, batch, crafted)

    @override
    def init_rows(self, labels: jax.Array, num_classes: int) -> Any:
        return self.inner.init_rows(labels, num_classes)

    @override
    def init_slot(self, images: jax.Array) -> Any:
        return self.inner.init_slot(images)

    @override
    def init_frozen(self, image_shape: Sequence[int], num_classes: int) -> Any:
        return self.inner.init_frozen(image_shape, num_classes)

    @override
    def control(self, scores: Sequence[float]) -> tuple[Method, Action]:
        inner, action = self.inner.control(scores)
        return dataclasses.replace(self, inner=inner), action

    @override
    def grads(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> Gradients:
        return self.inner.grads(net, params, batch, crafted)

    @override
    def update(
        self, net: Net, descend: Descend, state: TrainState, batch: Batch, keys: jax.Array
    ) -> tuple[TrainState, Aux]:
        return self.inner.update(net, descend, state, batch, keys)

    @property
    def innermost(self) -> Method:
        """The method inside all wrappers."""
        return self.inner.innermost if isinstance(self.inner, Wrapper) else self.inner
