"""The step rules of APGD: one for Linf and L2, one for L1.

Unlike the rules of `attacks.steps` they see the loss, and may return to the best point.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robustjax.config import config, number
from robustjax.threats import radius
from robustjax.typing import Threat


class APGDLook(NamedTuple):
    """The input of a rule after `number` steps: the present point and the best one."""

    number: jax.Array
    x_adv: jax.Array
    gradient: jax.Array
    loss: jax.Array
    x_best: jax.Array
    gradient_best: jax.Array
    loss_best: jax.Array


class HalvingState(NamedTuple):
    """The memory of `Halving`: of the last step, and since the last checkpoint."""

    x_old: jax.Array
    loss: jax.Array
    size: jax.Array
    window: jax.Array
    taken: jax.Array
    rises: jax.Array
    loss_best: jax.Array
    halved: jax.Array


@config
class Halving:
    """Steps with momentum, 2 eps at first, halved at checkpoints that find no progress.

    z = P(x_k + eta g_k), x_{k+1} = P(x_k + alpha (z - x_k) + (1 - alpha) (x_k - x_{k-1})). At a
    checkpoint eta is halved, and the run resumes from its best point, if at most rho of the steps
    since the last one raised the loss, or if neither eta nor the best loss has changed since.

    References: Croce & Hein, "Reliable evaluation of adversarial robustness", 2020, Algorithm 1.
    """

    rho: float = number(default=0.75, high=1.0)
    alpha: float = number(default=0.75, high=1.0)

    def init(
        self, x_start: jax.Array, x: jax.Array, threat: Threat, steps: jax.Array | int
    ) -> HalvingState:
        """The memory before the first step; the test of eta needs an earlier checkpoint."""
        return HalvingState(
            x_old=x_start,
            loss=jnp.asarray(-jnp.inf, x.dtype),
            size=jnp.asarray(2 * radius(threat), x.dtype),
            window=jnp.maximum(22 * jnp.int32(steps) // 100, 1),
            taken=jnp.int32(0),
            rises=jnp.int32(0),
            loss_best=jnp.asarray(-jnp.inf, x.dtype),
            halved=jnp.asarray(True),
        )

    def __call__(
        self, pace: Any, look: APGDLook, x: jax.Array, threat: Threat, steps: jax.Array | int
    ) -> tuple[jax.Array, HalvingState]:
        """-> (next point, memory)."""
        moved = look.number > 0
        taken = pace.taken + moved
        rises = pace.rises + (moved & (look.loss > pace.loss))
        checkpoint = taken == pace.window
        stuck = ~pace.halved & (pace.loss_best >= look.loss_best)
        halve = checkpoint & ((rises <= self.rho * taken) | stuck)
        size = jnp.where(halve, pace.size / 2, pace.size)
        x_adv = jnp.where(halve, look.x_best, look.x_adv)
        gradient = jnp.where(halve, look.gradient_best, look.gradient)

        z = threat.step(x_adv, gradient, size, x)
        alpha = jnp.where(moved, self.alpha, 1.0)
        z = x_adv + alpha * (z - x_adv) + (1 - alpha) * (x_adv - pace.x_old)
        shorter = pace.window - jnp.maximum(3 * steps // 100, 1)
        pace = HalvingState(
            x_old=x_adv,
            loss=look.loss,
            size=size,
            window=jnp.where(
                checkpoint, jnp.maximum(shorter, jnp.maximum(6 * steps // 100, 1)), pace.window
            ),
            taken=jnp.where(checkpoint, 0, taken),
            rises=jnp.where(checkpoint, 0, rises),
            loss_best=jnp.where(checkpoint, look.loss_best, pace.loss_best),
            halved=jnp.where(checkpoint, halve, pace.halved),
        )
        return threat.project(z, x), pace


class SparseState(NamedTuple):
    """The memory of `Sparse`: step size, number of components to move, number that had changed."""

    size: jax.Array
    moves: jax.Array
    changed: jax.Array


@config
class Sparse:
    """Steps of L1 length eta along the signs of the few largest gradient components.

    At each checkpoint the number of components becomes two thirds, rounded down, of those in which
    the best point differs from x. If that difference has shrunk by 5 %, eta returns to eps and the
    run to its best point; otherwise eta is divided by 1.5, down to eps / 10. (Rounded down, because
    the projection undoes a step in which all of the changed components move alike.)

    A component at its end of the box takes its share of the step and does not move. To leave it out
    makes the restarts alike: on 144 images of an Linf-robust MNIST network four runs then left 50
    unbroken, and with its share 41.

    References: Croce & Hein, "Mind the box: l1-APGD for sparse adversarial attacks", 2021.
    """

    guided: bool

    def init(
        self, x_start: jax.Array, x: jax.Array, threat: Threat, steps: jax.Array | int
    ) -> SparseState:
        """Move a fifth of the components, or, if guided, two thirds of those the start changed."""
        size = jnp.asarray(threat.eps, x.dtype)
        if not self.guided:
            return SparseState(size, jnp.int32(x.size // 5), jnp.int32(x.size))
        changed = jnp.sum(x_start != x)
        return SparseState(size, 2 * changed // 3, changed)

    def __call__(
        self, support: Any, look: APGDLook, x: jax.Array, threat: Threat, steps: jax.Array | int
    ) -> tuple[jax.Array, SparseState]:
        """-> (next point, memory)."""
        checkpoint = (look.number > 0) & (look.number % jnp.maximum(4 * steps // 100, 1) == 0)
        changed = jnp.sum(look.x_best != x)
        fewer = changed < 0.95 * support.changed
        again = checkpoint & fewer
        size = jnp.where(fewer, threat.eps, jnp.maximum(support.size / 1.5, threat.eps / 10))
        new = SparseState(size.astype(x.dtype), 2 * changed // 3, changed)
        support = jax.tree.map(lambda a, b: jnp.where(checkpoint, a, b), new, support)
        x_adv = jnp.where(again, look.x_best, look.x_adv)
        gradient = jnp.where(again, look.gradient_best, look.gradient)

        length = jnp.abs(gradient)
        smallest = jnp.sort(length.reshape(-1))[x.size - jnp.maximum(support.moves, 1)]
        direction = jnp.sign(gradient) * (length >= smallest)
        count = jnp.maximum(jnp.sum(direction != 0), 1)
        return threat.project(x_adv + support.size / count * direction, x), support
