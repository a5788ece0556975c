"""YOPO-m-n: full passes for the co-state, many steps through the first layer alone (2019)."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax import losses
from robustjax.attacks.starts import Gaussian
from robustjax.config import config, number, static
from robustjax.threats import Linf, radius
from robustjax.training.methods.base import (
    Aux,
    Batch,
    Crafted,
    Gradients,
    Method,
    accuracy,
    cross_entropy,
)
from robustjax.training.methods.trades import TRADES, OnPair
from robustjax.training.net import Net
from robustjax.typing import Cost, Scalar, Threat

FirstLayer = Literal["both", "hamiltonian"]


@config
class YOPO(Method):
    """Adversarial training whose attack reuses the gradient q = dL/dh behind the first layer h.

    For each of m rounds one full pass at x_adv gives q and the gradients of the weights; n steps
    x_adv <- P(x_adv + sigma s(grad <q, h(x_adv)>)) then need the first layer only, as does its
    gradient of <q, h(x_adv)> afterwards. The gradients of all rounds are summed for one update.

    Attributes:
      threat: the ball.
      rounds: m.
      steps: n.
      rel_step: sigma in units of eps.
      first_layer: 'both' gives it the full passes' gradient too, as the authors' code does, it
        seems by accident; 'hamiltonian' only that of <q, h>.

    References: Zhang et al., "You only propagate once", NeurIPS 2019, algorithm 1.

    >>> YOPO(rounds=5, steps=3).loss_cost
    Cost(forwards=5, backwards=5)
    """

    threat: Threat = Linf(8 / 255)
    rounds: int = number(default=5, low=1, static=True)
    steps: int = number(default=3)
    rel_step: float = number(default=0.25)
    first_layer: FirstLayer = static(default="both")

    @property
    @override
    def loss_cost(self) -> Cost:
        # A full pass a round; those of the first layer do not count.
        return Cost(self.rounds, self.rounds)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        return Crafted(jax.vmap(self.threat.sample)(keys, batch.image), net.stats)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        hidden, _ = net.forward(params, crafted.x_adv, method="stem_output")
        return self.rest(net, params, hidden, batch)

    def rest(self, net: Net, params: Any, hidden: jax.Array, batch: Batch) -> tuple[jax.Array, Aux]:
        """CE from the first layer's output on."""
        logits, stats = net.forward(params, hidden, "commit", method="rest")
        loss = cross_entropy(net, logits, batch).mean()
        return loss, Aux(stats, {"robust_accuracy": accuracy(logits, batch.label)})

    @override
    def grads(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> Gradients:
        size = self.rel_step * radius(self.threat)

        def one(carry, _):
            x_adv, stats, total = carry
            here = net.replace(stats=stats)
            hidden, _ = here.forward(params, x_adv, method="stem_output")

            def rest(params, hidden):
                return self.rest(here, params, hidden, batch)

            back = jax.value_and_grad(rest, (0, 1), has_aux=True)
            (loss, aux), (grads, costate) = back(params, hidden)
            parts = [grads]
            if self.first_layer == "both":
                parts.append(jax.grad(hamiltonian, 1)(here, params, costate, x_adv))
            x_adv = push(here, params, costate, x_adv, batch.image, self.threat, size, self.steps)
            parts.append(jax.grad(hamiltonian, 1)(here, params, costate, x_adv))
            total = jax.tree.map(lambda *a: sum(a), total, *parts)
            return (x_adv, aux.stats, total), {"loss": loss, **aux.metrics}

        zeros = jax.tree.map(jnp.zeros_like, params)
        carry = crafted.x_adv, net.stats, zeros
        (_, stats, total), metrics = jax.lax.scan(one, carry, length=self.rounds)
        metrics = jax.tree.map(lambda a: a.mean(0), metrics)
        return Gradients(net.mean(total), Aux(stats, metrics), params)


@config
class TradesYOPO(OnPair):
    """TRADES whose attack has m co-states of the KL, n steps through the first layer with each.

    Attributes:
      beta: weight of the KL; 1 in the authors' code.
      threat, rounds, steps, rel_step: as in YOPO; 3-4 or 2-5 in the authors' code.

    References: Zhang et al., "You only propagate once", NeurIPS 2019.

    >>> TradesYOPO(rounds=3).craft_cost
    Cost(forwards=4, backwards=3)
    """

    beta: float = number(default=1.0)
    threat: Threat = Linf(8 / 255)
    rounds: int = number(default=3)
    steps: int = number(default=4)
    rel_step: float = number(default=0.22)

    @property
    @override
    def craft_cost(self) -> Cost:
        # A co-state a round, and the clean prediction.
        return Cost(self.rounds + 1, self.rounds)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        clean = net.logits(params, batch.image)
        size = self.rel_step * radius(self.threat)

        def kl(hidden):
            logits, _ = net.forward(params, hidden, method="rest")
            return jax.vmap(losses.kl)(logits, clean).sum()

        def one(_, x_adv):
            hidden, _ = net.forward(params, x_adv, method="stem_output")
            costate = jax.grad(kl)(hidden)
            return push(net, params, costate, x_adv, batch.image, self.threat, size, self.steps)

        start = jax.vmap(Gaussian(), (0, 0, None))(keys, batch.image, self.threat)
        x_adv = jax.lax.fori_loop(0, self.rounds, one, start)
        return Crafted(jax.lax.stop_gradient(x_adv), net.stats)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        return TRADES(self.beta).loss(net, params, batch, crafted)


def hamiltonian(net: Net, params: Any, costate: jax.Array, x: jax.Array) -> jax.Array:
    """<q, h(x)>, summed over the batch; h is the first layer."""
    return jnp.vdot(costate, net.forward(params, x, method="stem_output")[0])


def push(
    net: Net,
    params: Any,
    costate: jax.Array,
    x_adv: jax.Array,
    x: jax.Array,
    threat: Threat,
    size: Scalar,
    steps: int,
) -> jax.Array:
    """Images (B, H, W, C) after this many steps up the Hamiltonian within the threat around x."""

    def step(_, x_adv):
        gradient = jax.grad(hamiltonian, 3)(net, params, costate, x_adv)
        return jax.vmap(threat.step, (0, 0, None, 0))(x_adv, gradient, size, x)

    return jax.lax.fori_loop(0, steps, step, x_adv)
