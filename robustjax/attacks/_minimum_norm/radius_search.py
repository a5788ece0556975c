"""What DDN and FMN share: ascend a loss inside a ball whose radius follows the success."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import logits_of
from robustjax.attacks._minimum_norm.boundary import BoundarySearch, Seen, Walk
from robustjax.attacks.targets import WrongLabel, aim, check_aim, sense
from robustjax.threats import L2, box_of
from robustjax.typing import Loss, Threat


class RadiusSearch(BoundarySearch):
    """A boundary search that climbs one loss."""

    loss: Loss
    label: WrongLabel
    rank: int

    def aim(self, example: Example, output: Any) -> Any:
        """What the loss compares the output with."""
        if example.target is not None:
            return example.target
        check_aim(self.loss, self.label)
        key = jax.random.fold_in(example.key, 0)
        return aim(self.loss, self.label, logits_of(output), key, example.y, self.rank)

    def objectives(self, output: Any, example: Example, aim: Any) -> jax.Array:
        """The loss, as a vector of one; negated towards a class."""
        return sense(self.loss, self.label) * self.loss(output, aim)[None]

    def ascend(self, walk: Walk, seen: Seen) -> jax.Array:
        """One step along g / ||g||_2, of a length that falls from 1 to 0.01; outside any ball."""
        size = annealed(1.0, 0.01, walk.taken / jnp.maximum(self.steps, 1))
        low, high = box_of(self.threat, walk.point)
        return walk.point + size * L2().steepest(seen.gradients[0] * (low < high))


def annealed(first: float, last: float, progress: jax.Array) -> jax.Array:
    """From `first` to `last` along half a cosine."""
    return last + (first - last) * (1 + jnp.cos(jnp.pi * progress)) / 2


def widest(threat: Threat, x: jax.Array) -> jax.Array:
    """The distance of the farthest image."""
    low, high = box_of(threat, x)
    return threat.distance(jnp.where(x - low < high - x, high, low).astype(x.dtype), x)
