"""Boundary searches: evaluate a point, remember it if it is the nearest success, move on.

One evaluation (a forward pass, and its gradients from the same pass) answers three questions: is
the point adversarial, is it nearer than the best one so far, and where is the next one.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example, MinimumNorm
from robustjax.attacks._core.success import Success, won_by
from robustjax.attacks.targets import Goal
from robustjax.config import config, static
from robustjax.deterministic import ordered_sum
from robustjax.outputs import float_logits
from robustjax.threats import box_of
from robustjax.typing import Cost, LogitsFn, Threat

RESOLUTION = 1e-4
"""The smallest relative gain in distance that counts.

A radius that shrinks and grows by c creeps by c^2 towards the boundary, until rounding alone makes
the image adversarial; another compiled program rounds differently.
"""

CHUNK = 16
"""The largest number of objectives whose gradients are taken at once, if there are many."""
_TINY = 1e-30
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
      value: () the objective whose linearised zero is nearest; it grows towards the adversary's
        side. The least number of its type where it is -inf, as for a class that is masked, or has
        no gradient.
      gradient: (H, W, C) its gradient, finite.
      won: the point is adversarial.
    """

    value: jax.Array
    gradient: jax.Array
    won: jax.Array


class Linear(NamedTuple):
    """The nearest of some linearised objectives, and whether any of them is NaN."""

    far: jax.Array
    value: jax.Array
    gradient: jax.Array
    broken: jax.Array


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
        near = self._nearest(values, pull)
        won = won_by(self.success, output, example)
        distance = self.threat.distance(walk.point, example.x)
        nearer = won & (distance < walk.distance * (1 - RESOLUTION))
        walk = walk._replace(
            nearest=jnp.where(nearer, walk.point, walk.nearest),
            distance=jnp.where(nearer, distance, walk.distance),
        )
        point, memory = self.move(example, walk, Evaluation(near.value, near.gradient, won))
        return walk._replace(
            taken=walk.taken + 1,
            cost=Cost(walk.cost.forwards + 1, walk.cost.backwards + values.size),
            point=jnp.clip(point, *box_of(self.threat, example.x)),
            broken=walk.broken | near.broken,
            memory=memory,
        )

    def _nearest(self, values: jax.Array, pull: Callable[[jax.Array], tuple[jax.Array]]) -> Linear:
        """The objective whose linearisation is zero nearest to the point, the first of equals.

        No more than `CHUNK` gradients are in memory at once.
        """

        def among(start, values):
            weights = jax.nn.one_hot(start + jnp.arange(values.size), count, dtype=values.dtype)
            (gradients,) = jax.vmap(pull)(weights)
            sloped = jax.vmap(lambda g: jnp.all(jnp.isfinite(g)))(gradients)
            usable = sloped & jnp.isfinite(values)
            broken = jnp.any(jnp.isnan(values) | ~sloped)
            values = jnp.where(usable, values, jnp.finfo(values.dtype).min)
            gradients = jnp.where(usable[:, None, None, None], gradients, 0)
            if count == 1:
                return Linear(jnp.zeros_like(values[0]), values[0], gradients[0], broken)
            slopes = jax.vmap(lambda g: dual_norm(self.threat, g))(gradients)
            far = jnp.abs(values) / (slopes + _TINY)
            k = jnp.argmin(far)
            return Linear(far[k], values[k], gradients[k], broken)

        def nearer(best, chunk):
            new = among(*chunk)
            kept = jax.tree.map(lambda a, b: jnp.where(new.far < best.far, a, b), new, best)
            return kept._replace(broken=new.broken | best.broken), None

        count = values.size
        if count <= CHUNK:
            return among(0, values)
        padded = jnp.pad(values, (0, -count % CHUNK), constant_values=-jnp.inf)
        chunks = padded.reshape(-1, CHUNK)
        starts = CHUNK * jnp.arange(1, len(chunks))
        return jax.lax.scan(nearer, among(0, chunks[0]), (starts, chunks[1:]))[0]

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


def dual_norm(threat: Threat, gradient: jax.Array) -> jax.Array:
    """The most that a linear function with this gradient grows over a unit of the threat's norm."""
    return ordered_sum((gradient * threat.steepest(gradient)).reshape(-1))
