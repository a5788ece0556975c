"""Free adversarial training: one gradient for the weights and the image (Shafahi et al. 2019)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from typing_extensions import override

from robustjax.config import config, number
from robustjax.threats import Linf, radius
from robustjax.training.methods.base import (
    Aux,
    Batch,
    Crafted,
    Descend,
    Method,
    accuracy,
    cross_entropy,
)
from robustjax.training.net import Net
from robustjax.training.state import TrainState
from robustjax.typing import Cost, Threat


@config
class Free(Method):
    """Replay every batch m times; each gradient moves the weights and a lasting perturbation.

    theta <- SGD(theta, grad_theta CE), delta <- P(delta + eps s(grad_delta CE)), both at the old
    (theta, delta). delta belongs to a position in the batch, starts at 0 and is never reset. It is
    kept in the pixel box too, while the authors' code clips only the network's input. A training
    step takes m optimiser steps: divide the epochs by m for the authors' budget.

    Attributes:
      threat: the ball; a step has its radius.
      replays: m.

    References: Shafahi et al., NeurIPS 2019, algorithm 1.

    >>> Free(replays=4).loss_cost
    Cost(forwards=4, backwards=4)
    """

    threat: Threat = Linf(8 / 255)
    replays: int = number(default=8, low=1, static=True)

    @override
    def init_slot(self, images: jax.Array) -> jax.Array:
        return jnp.zeros_like(images)

    @property
    @override
    def loss_cost(self) -> Cost:
        return Cost(self.replays, self.replays)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        return Crafted(
            jax.vmap(self.threat.project)(batch.image + batch.slot, batch.image), net.stats
        )

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        logits, stats = net.train(params, crafted.x_adv)
        loss = cross_entropy(net, logits, batch).mean()
        metrics = {"loss": loss, "robust_accuracy": accuracy(logits, batch.label)}
        return loss, Aux(stats, metrics, slot=crafted.x_adv - batch.image)

    @override
    def update(
        self, net: Net, descend: Descend, state: TrainState, batch: Batch, keys: jax.Array
    ) -> tuple[TrainState, Aux]:
        if net.accumulate > 1:
            raise ValueError("Free updates delta with every gradient: it cannot accumulate slices")
        m = self.replays
        share = net.progress / (state.step + 1)

        def replay(carry, j):
            state, slot = carry
            here = net.replace(stats=state.stats)
            part = batch.replace(slot=slot)
            x_adv = self.perturb(here, state.params, part, keys).x_adv

            def loss(params, x_adv):
                return self.loss(here, params, part, Crafted(x_adv, here.stats))

            (params_grad, image_grad), aux = jax.grad(loss, argnums=(0, 1), has_aux=True)(
                state.params, x_adv
            )
            step = radius(self.threat) * jax.vmap(self.threat.steepest)(image_grad)
            slot = jax.vmap(self.threat.project)(x_adv + step, batch.image) - batch.image
            progress = net.progress - share * (m - 1 - j) / m
            state = descend(state, net.mean(params_grad), state.params, progress)
            return (state.replace(stats=aux.stats), slot), aux.metrics

        (state, slot), metrics = lax.scan(replay, (state, batch.slot), jnp.arange(m))
        last = jax.tree.map(lambda a: a[-1], metrics)
        return state, Aux(state.stats, last, slot=slot)
