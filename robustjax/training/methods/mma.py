"""Max-margin adversarial training: each example at its own distance to the decision boundary."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.config import config, number, static
from robustjax.threats import box_of, radius, with_radius
from robustjax.training.methods.base import Aux, Batch, Crafted, cross_entropy
from robustjax.training.methods.pgd_at import ATTACK, climbing
from robustjax.training.methods.trades import OnPair, forward_pair
from robustjax.training.net import Net
from robustjax.typing import Cost


@config
class MMA(OnPair):
    """min E clean CE(z(x), t) + (1 - clean) CE(z(x*), t), x* where the soft margin of x crosses 0.

    An image with p_y > 1/2 is attacked within its margin as last found, then moved to the boundary
    along that direction by bisection, and left out of the second term if that lies beyond d_max;
    for others x* is x. The rows are the margins eps_i (N,). The bisection sees running
    statistics, where the authors' code sees those of the correct examples, and x* stays in the box.

    Attributes:
      attack: its threat, steps, start and rule; the soft margin is what it maximises.
      reach: d_max in units of the threat's eps: 12, 20 and 32 / 255 in the paper.
      least: smallest radius of an attack, in units of eps: 0.005 in the authors' code.
      clean: share of the clean loss, 1/3; without it the method is OMMA.
      judge: BatchNorm's mode where p_y > 1/2 is asked: 'running', as the model is evaluated, or
        'batch', the clean images' own statistics, as in the authors' code.

    References: Ding et al., "MMA training: direct input space margin maximization through
      adversarial training", ICLR 2020, algorithms 1 and 2.

    >>> MMA().init_rows(jnp.array([3, 1]), num_classes=10)  # margins
    Array([0., 0.], dtype=float32)
    """

    attack: PGD = ATTACK
    reach: float = number(default=1.5)
    least: float = number(default=0.16)
    clean: float = number(default=1 / 3, low=0, high=1)
    judge: Literal["running", "batch"] = static(default="running")

    @override
    def init_rows(self, labels: jax.Array, num_classes: int) -> jax.Array:
        return jnp.zeros(len(labels))

    @property
    @override
    def craft_cost(self) -> Cost:
        # The attack's, the bisection, and which examples are correct.
        return Cost(self.attack.cost.forwards + HALVINGS + 1, self.attack.cost.backwards)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """x*, and in `extra` (margins (B,), which examples are in the second term (B,))."""
        x, eps = batch.image, radius(self.attack.threat)

        def soft_margin(images):
            return jax.vmap(losses.soft_margin)(net.logits(params, images), batch.label)

        size = jnp.maximum(batch.rows, self.least * eps)
        threat = with_radius(self.attack.threat, size)
        attack = climbing(self.attack, losses.soft_margin, threat=threat)
        x_adv, stats = net.craft(attack, params, keys, x, batch.label)
        direction = (x_adv - x) / per_image(jnp.where(size > 0, size, 1))

        def at(r):
            moved = x + per_image(r) * direction
            return jax.vmap(lambda z, x: jnp.clip(z, *box_of(self.attack.threat, x)))(moved, x)

        def halve(_, interval):
            low, high, r = interval
            inside = soft_margin(at(r)) < 0
            low, high = jnp.where(inside, r, low), jnp.where(inside, high, r)
            return low, high, (low + high) / 2

        d_max = self.reach * eps
        interval = jnp.zeros_like(size), jnp.full_like(size, 1.05 * d_max), size
        _, _, margin = jax.lax.fori_loop(0, HALVINGS, halve, interval)
        judged, _ = net.forward(params, x, self.judge)
        correct = jax.vmap(losses.soft_margin)(judged, batch.label) < 0
        margin = jnp.where(correct, margin, 0.0)
        return jax.lax.stop_gradient(Crafted(at(margin), stats, (margin, margin < d_max)))

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        clean, boundary, aux = forward_pair(net, params, batch, crafted)
        margin, counts = crafted.extra
        natural = cross_entropy(net, clean, batch).mean()
        near = (counts * cross_entropy(net, boundary, batch)).mean()
        metrics = {"accuracy": aux.metrics["accuracy"], "margin": margin.mean()}
        loss = self.clean * natural + (1 - self.clean) * near
        return loss, Aux(aux.stats, metrics, rows=margin)


HALVINGS = 10


def per_image(numbers: jax.Array) -> jax.Array:
    """(B,) -> (B, 1, 1, 1)."""
    return numbers.reshape(-1, 1, 1, 1)
