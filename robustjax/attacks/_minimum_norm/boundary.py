"""Boundary searches: evaluate a point, remember it if it is the nearest success, move on.

One evaluation (a forward pass, and its gradients from the same pass) answers three questions: is
the point adversarial, is it nearer than the best one so far, and where is the next one.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example, MinimumNorm
from robustjax.attacks._core.success import Success, won_by
from robustjax.attacks.targets import Goal
from robustjax.config import config, static
from robustjax.outputs import float_logits
from robustjax.threats import box_of
from robustjax.typing import Cost, LogitsFn

RESOLUTION = 1e-4
"""The smallest relative gain in distance that counts.

A radius that shrinks and grows by c creeps by c^2 towards the boundary, until rounding alone makes
the image adversarial; another compiled program rounds differently.
"""

NUDGE = 1e-5
"""The least move, in the norm: at a tie the boundary is at hand, and no move is no success."""


class BoundaryState(NamedTuple):
    """State of a boundary search.

    Attributes:
      taken: evaluations so far; the clean image is the first.
      cost: model calls so far.
      point: (H, W, C), evaluated next.
      nearest: the nearest adversarial image so far; the clean image before there is one.
      distance: of `nearest`, in the norm of the threat; inf before there is one.
      goal: output -> the objectives, () or (m,).
      broken: an objective or a gradient was NaN.
      memory: what the attack keeps between moves.
    """

    taken: jax.Array
    cost: Cost
    point: jax.Array
    nearest: jax.Array
    distance: jax.Array
    goal: Goal | Gaps
    broken: jax.Array
    memory: Any


class Evaluation(NamedTuple):
    """Result of one evaluation.

    Attributes:
      values: (m,) the objectives at the point; they grow towards the adversary's side. The least
        number of their type where one is -inf, as for a class that is masked, or has no gradient.
      gradients: (m, H, W, C), finite.
      won: the point is adversarial.
    """

    values: jax.Array
    gradients: jax.Array
    won: jax.Array


@config
class Gaps:
    """z_k - z_y for some rival classes k (m,); negative while the label wins.

    Attributes:
      rivals: (m,) the classes.
      label: () y.
      forwards: the forward passes that choosing the rivals took.
    """

    rivals: jax.Array
    label: jax.Array
    forwards: int = static(default=0)

    def __call__(self, output: Any) -> jax.Array:
        """-> (m,)."""
        logits = float_logits(output)
        return logits[self.rivals] - logits[self.label]


class BoundarySearch(MinimumNorm):
    """`steps` moves from the clean image; each of the `steps` + 1 points is evaluated once.

    A subclass says which objectives it needs at a point, and how it moves.
    """

    steps: int
    success: Success

    @abc.abstractmethod
    def goal(self, logits_fn: LogitsFn, example: Example) -> Goal | Gaps:
        """The objectives whose gradients the moves need."""

    @abc.abstractmethod
    def remember(self, example: Example) -> Any:
        """The memory before the first move, a pytree of arrays."""

    @abc.abstractmethod
    def move(
        self, example: Example, walk: BoundaryState, seen: Evaluation
    ) -> tuple[jax.Array, Any]:
        """The next point, which the caller clips to the box, and the memory.

        `walk.point` was just evaluated; `walk.nearest` already takes it into account.
        """

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> BoundaryState:
        goal = self.goal(logits_fn, example)
        return BoundaryState(
            taken=jnp.int32(0),
            cost=Cost(jnp.int32(goal.forwards), jnp.int32(0)),
            point=example.x,
            nearest=example.x,
            distance=jnp.asarray(jnp.inf, example.x.dtype),
            goal=goal,
            broken=jnp.asarray(False),
            memory=self.remember(example),
        )

    @override
    def step(self, logits_fn: LogitsFn, example: Example, walk: BoundaryState) -> BoundaryState:

        def look(point):
            output = logits_fn(point)
            return jnp.atleast_1d(walk.goal(output)).astype(point.dtype), output

        values, pull, output = jax.vjp(look, walk.point, has_aux=True)
        (gradients,) = jax.vmap(pull)(jnp.eye(values.size, dtype=values.dtype))
        sloped = jax.vmap(lambda g: jnp.all(jnp.isfinite(g)))(gradients)
        broken = jnp.any(jnp.isnan(values) | ~sloped)
        usable = sloped & jnp.isfinite(values)
        values = jnp.where(usable, values, jnp.finfo(values.dtype).min)
        gradients = jnp.where(usable[:, None, None, None], gradients, 0)
        won = won_by(self.success, output, example)
        distance = self.threat.distance(walk.point, example.x)
        nearer = won & (distance < walk.distance * (1 - RESOLUTION))
        walk = walk._replace(
            nearest=jnp.where(nearer, walk.point, walk.nearest),
            distance=jnp.where(nearer, distance, walk.distance),
        )
        point, memory = self.move(example, walk, Evaluation(values, gradients, won))
        return walk._replace(
            taken=walk.taken + 1,
            cost=Cost(walk.cost.forwards + 1, walk.cost.backwards + values.size),
            point=jnp.clip(point, *box_of(self.threat, example.x)),
            broken=walk.broken | broken,
            memory=memory,
        )

    @override
    def done(self, walk: BoundaryState) -> jax.Array:
        return (walk.taken > self.steps) | (walk.distance == 0)

    @override
    def result(self, example: Example, walk: BoundaryState) -> jax.Array:
        return walk.nearest

    @override
    def broken(self, walk: BoundaryState) -> jax.Array:
        return walk.broken

    @override
    def spent(self, walk: BoundaryState) -> Cost:
        return walk.cost
