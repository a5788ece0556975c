"""Rectified rejection, a wrapper: an auxiliary head learns how far to trust the confidence."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import lax
from typing_extensions import override

from robustjax import losses
from robustjax.config import config, number, static
from robustjax.training.methods.awp import AWP
from robustjax.training.methods.base import Aux, Batch, Crafted, Descend, Gradients, Method
from robustjax.training.methods.pgd_at import PGDAT
from robustjax.training.methods.wrapper import Wrapper
from robustjax.training.net import Net
from robustjax.training.state import TrainState
from robustjax.typing import Cost

INNER = PGDAT()
Stopped = Literal["right", "all", "target", "none"]


@config
class RectifiedRejection(Wrapper):
    """The inner method's loss + weight E BCE(R; F_y), R = F_m A the rectified confidence.

    F is the softmax on the inner method's adversarial images, F_m its largest entry, the
    confidence, F_y that of the label, the true confidence, and A in (0, 1) an auxiliary head's on
    the features. An input is rejected where R is low: `detection.Rectified`. The images are those
    of the inner method, made against the classifier alone. The authors compute both terms in one
    pass; here the second has a pass of its own, under the same batch statistics, so that any method
    can be the inner one.

    Attributes:
      inner: the method that is wrapped; not one with gradients of its own
        (AWP, YOPO, Free); AWP may wrap the result.
      weight: lambda; 1 in the authors' code.
      stopped: the part of the second term that has no gradient: 'right', F_y everywhere and F_m
        where the prediction is right, as in the authors' command; 'target', F_y; 'all', F_y and
        F_m, so that the term trains the head and its features alone; 'none', nothing.

    References: Pang et al., "Two coupled rejection metrics can tell adversarial examples apart",
      CVPR 2022, and its code.

    >>> RectifiedRejection(PGDAT()).model
    {'auxiliary': True}
    """

    inner: Method = INNER
    weight: float = number(default=1.0)
    stopped: Stopped = static(default="right")

    def __post_init__(self):
        method = self.inner
        while isinstance(method, Wrapper) and not isinstance(method, AWP):
            method = method.inner
        if isinstance(method, AWP) or {"grads", "update"} & vars(type(method)).keys():
            raise ValueError(
                f"RectifiedRejection cannot wrap {type(method).__name__}, which makes its own "
                "gradients; put AWP outside: AWP(RectifiedRejection(...))"
            )

    @property
    @override
    def model(self) -> dict[str, Any]:
        return self.inner.model | {"auxiliary": True}

    @property
    @override
    def loss_cost(self) -> Cost:
        # The inner method's, and a pass over the adversarial images.
        return Cost(*(1 + passes for passes in self.inner.loss_cost))

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        value, aux = self.inner.loss(net, params, batch, crafted)
        (z, logits), _ = net.forward(params, crafted.x_adv, "batch", method="both")
        auxiliary, stats = net.forward(params, z, "commit", aux.stats, method="trust")
        term = jax.vmap(self.term)(logits, auxiliary, batch.label).mean()
        metrics = aux.metrics | {"rejection": lax.stop_gradient(term)}
        return value + self.weight * term, aux.replace(stats=stats, metrics=metrics)

    def term(self, logits: jax.Array, auxiliary: jax.Array, label: jax.Array) -> jax.Array:
        """BCE(R; F_y) of one example: logits (K,), the head's log-odds (), the label ()."""
        confidence, target = losses.confidence_odds(logits), jax.nn.softmax(logits)[label]
        right = jnp.argmax(logits) == label
        fixed = {"right": right, "all": True, "target": False, "none": False}[self.stopped]
        confidence = jnp.where(fixed, lax.stop_gradient(confidence), confidence)
        target = target if self.stopped == "none" else lax.stop_gradient(target)
        odds = losses.rectified_odds(confidence, auxiliary)
        return optax.sigmoid_binary_cross_entropy(odds, target)

    @override
    def grads(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> Gradients:
        return Method.grads(self, net, params, batch, crafted)

    @override
    def update(
        self, net: Net, descend: Descend, state: TrainState, batch: Batch, keys: jax.Array
    ) -> tuple[TrainState, Aux]:
        return Method.update(self, net, descend, state, batch, keys)
