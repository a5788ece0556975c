"""The base of DDN and FMN: ascend a loss inside a ball whose radius follows the success."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._minimum_norm.boundary import BoundarySearch, BoundaryState, Evaluation
from robustjax.attacks.targets import Goal, Target, check_chosen_once, goal_of
from robustjax.threats import L2, box_of
from robustjax.typing import LogitsFn, Loss, Threat


class RadiusSearch(BoundarySearch):
    """A boundary search that climbs one loss."""

    loss: Loss
    target: Target

    def __post_init__(self):
        check_chosen_once(self)

    @override
    def goal(self, logits_fn: LogitsFn, example: Example) -> Goal:
        return goal_of(self, logits_fn, jax.random.fold_in(example.key, 0), example)

    def ascend(self, walk: BoundaryState, seen: Evaluation) -> jax.Array:
        """One step along g / ||g||_2, of a length that falls from 1 to 0.01; not projected."""
        size = annealed(1.0, 0.01, walk.taken / jnp.maximum(self.steps, 1))
        low, high = box_of(self.threat, walk.point)
        return walk.point + size * L2().steepest(seen.gradient * (low < high))


def annealed(first: float, last: float, progress: jax.Array) -> jax.Array:
    """From `first` to `last` along half a cosine."""
    return last + (first - last) * (1 + jnp.cos(jnp.pi * progress)) / 2


def widest(threat: Threat, x: jax.Array) -> jax.Array:
    """The distance of the farthest image."""
    low, high = box_of(threat, x)
    return threat.distance(jnp.where(x - low < high - x, high, low).astype(x.dtype), x)
