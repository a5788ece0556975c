"""Neural level sets: push the decision boundary away from the images (Atzmon et al. 2019)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.checks import check_kind
from robustjax.config import config, number
from robustjax.threats import Linf
from robustjax.training.methods.base import Aux, Batch, Crafted, Method
from robustjax.training.methods.mma import per_image
from robustjax.training.methods.pgd_at import climbing
from robustjax.training.net import Net
from robustjax.typing import Cost

ATTACK = PGD(steps=20, rel_step=4.5)
"""Twenty sign steps of 0.225 of an image's radius, from a uniform start."""

ITERATIONS = 20
"""Of the false position method."""

TOLERANCE = 0.1
"""The largest |F| that counts as the boundary."""


@config
class LevelSets(Method):
    """min E w [eps_i - s d(x, p(theta))]_+, p(theta) a boundary point that follows the weights.

    F(x) = max_{k != y} z_k - z_y; s is 1 where x is correct, else -1. An attack on s F within
    eps_i, and the false position method on the way back to x, find p with F(p) = 0. To first order
    the boundary takes it to p(theta) = p - (F(p; theta) - F(p; theta_0)) g / ||g||^2 with g = grad
    F(p; theta_0), whose distance d = |x - p(theta)| is measured in the pixel where |g| is largest.
    eps_i is reach * eps for correct images, after a linear growth from `least` over the first part
    of training, and `wrong` * eps for others; w is `weight` and 1. There is no cross-entropy.

    p is found under running statistics, and follows under those of the batch, which are committed:
    the authors' batch holds only points that were found, ours the image itself where none was.
    Their steps are shorter for wrong images, 0.14 of the radius.

    Attributes:
      attack: its threat, which must be Linf, its steps, start and rule; s F is what it maximises.
      reach: 0.045 of eps 0.031 in the authors' code.
      least: 0.001 there.
      wrong: 0.05 there.
      ramp: fraction of training in which the radius grows; 50 of 200 epochs.
      weight: of a correct image; 4 with ResNet-18, 11 with their four convolutions.

    References: Atzmon et al., "Controlling neural level sets", NeurIPS 2019, Eq. 5, 9 and 11.

    >>> LevelSets(attack=PGD(Linf(4 / 255), steps=20)).craft_cost
    Cost(forwards=43, backwards=21)
    """

    attack: PGD = ATTACK
    reach: float = number(default=1.45)
    least: float = number(default=0.032)
    wrong: float = number(default=1.61)
    ramp: float = number(default=0.25, low=0, high=1)
    weight: float = number(default=4.0)

    def __post_init__(self):
        check_kind("the threat of neural level sets", self.attack.threat, Linf)

    @property
    @override
    def craft_cost(self) -> Cost:
        # The attack's, both ends, the false position method, and the gradient at the boundary.
        own = self.attack.cost
        return Cost(own.forwards + 2 + ITERATIONS + 1, own.backwards + 1)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """The boundary points; in `extra` (s, eps_i, found, F(p), g), each (B, ...)."""
        x, y, eps = batch.image, batch.label, self.attack.threat.eps

        def margin(logits):
            return jax.vmap(losses.margin)(logits, y)

        here = margin(net.logits(params, x))
        sign = jnp.where(here < 0, 1.0, -1.0)
        grown = jnp.minimum(net.progress / jnp.maximum(self.ramp, 1e-6), 1)
        correct = self.least + grown * (self.reach - self.least)
        radius = eps * jnp.where(here < 0, correct, self.wrong)
        attack = climbing(self.attack, signed_margin, threat=Linf(radius))
        x_adv, stats = net.craft(attack, params, keys, x, y, (y, sign))

        def along(t):
            return x + per_image(t) * (x_adv - x)

        def value(t):
            return margin(net.logits(params, along(t)))

        there = margin(net.logits(params, x_adv))
        t, final = false_position(value, here, there)
        found = (here * there <= 0) & (jnp.abs(final) < TOLERANCE)
        point = jnp.where(per_image(found), along(t), x)
        gradient, start, _ = net.image_gradient(params, point, margin, "batch")
        extra = sign, radius, found, start, gradient
        return lax.stop_gradient(Crafted(point, stats, extra))

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        sign, radius, found, start, gradient = crafted.extra
        logits, stats = net.train(params, crafted.x_adv)
        value = jax.vmap(losses.margin)(logits, batch.label)
        moved = jax.vmap(follow)(crafted.x_adv, value - start, gradient)
        apart = jax.vmap(steepest_distance)(batch.image, moved, gradient)
        weight = jnp.where(sign > 0, self.weight, 1.0)
        loss = jnp.where(found, weight * jax.nn.relu(radius - sign * apart), 0).mean()
        metrics = {"accuracy": jnp.mean(sign > 0), "found": jnp.mean(found)}
        return loss, Aux(stats, metrics)


def signed_margin(logits: jax.Array, target: tuple[jax.Array, jax.Array]) -> jax.Array:
    """s F: the margin of a label, times the sign."""
    label, sign = target
    return sign * losses.margin(logits, label)


def follow(point: jax.Array, change: jax.Array, gradient: jax.Array) -> jax.Array:
    """The point that a level set moves to when its function changes by `change` there.


    To first order, along the function's gradient (the paper's sample network, Eq. 5).
    """
    return point - change * gradient / jnp.maximum(jnp.sum(gradient**2), 1e-6)


def steepest_distance(a: jax.Array, b: jax.Array, gradient: jax.Array) -> jax.Array:
    """|a - b| in the one component where the gradient is largest."""
    component = jnp.argmax(jnp.abs(gradient).reshape(-1))
    return jnp.abs((a - b).reshape(-1)[component])


def false_position(function: Any, left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Zeros t of functions on [0, 1] whose values at both ends are given, all (B,).

    Returns:
      (t, the values there); meaningless where both ends have the same sign.
    """

    def cut(_, interval):
        (a, f_a), (b, f_b), _ = interval
        rise = f_b - f_a
        t = jnp.where(rise == 0, (a + b) / 2, a - f_a * (b - a) / jnp.where(rise == 0, 1, rise))
        t = jnp.clip(t, 0, 1)
        f_t = function(t)
        before = f_t * f_a > 0
        lower = jnp.where(before, t, a), jnp.where(before, f_t, f_a)
        upper = jnp.where(before, b, t), jnp.where(before, f_b, f_t)
        return lower, upper, (t, f_t)

    zero, one = jnp.zeros_like(left), jnp.ones_like(left)
    ends = (zero, left), (one, right), (zero, left)
    return lax.fori_loop(0, ITERATIONS, cut, ends)[2]
