"""Short ascents from mixtures of the best points so far: beyond the gradient of one start."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._gradient.short_ascents import AscentsState, ShortAscents
from robustjax.attacks.starts import Uniform
from robustjax.config import config, number, static
from robustjax.threats import Linf, radius
from robustjax.typing import Scalar, Threat


class Pool(NamedTuple):
    """What `Memetic` remembers.

    Attributes:
      points: (P, H, W, C), the members.
      margins: (P,) their margins; -inf for those that do not exist yet.
      x_top: (H, W, C), the image with the largest margin of the present ascent.
      margin_top: () its margin.
    """

    points: jax.Array
    margins: jax.Array
    x_top: jax.Array
    margin_top: jax.Array


@config
class Memetic(ShortAscents):
    """A memetic algorithm: a pool of points whose children are climbed by gradient ascent.

    Where a network has many local maxima, those with large margins lie near each other: a mixture
    of two of them is a better start than a random point. The first ascents fill the pool: from the
    clean image, then from random corners and uniform points of the ball. After that each member in
    turn has a child: every entry is the member's or, with a probability that is drawn for the
    child, that of the better of two random members; a few entries mutate to those of a random
    corner. The best point of the ascent that starts there takes the member's place if its margin is
    larger.

    An ascent takes `steps` gradients of the margin; its steps fall like a cosine, from 2 eps to 0
    while the pool is filled, and from `stride` times that for children. An image has population +
    (ascents - population) (1 - h)^patience ascents, where h is the margin that is left, divided by
    that of the clean image. On a `Randomized` model no draw ends the attack.

    Args:
      threat: the ball.
      ascents: the most ascents of an image.
      steps: of each ascent.
      population: number of points in the pool.
      stride: the length of the steps of a child's ascent, relative to those of the first ascents.
      mutation: the fraction of a child's entries that come from a random corner.
      patience: the larger it is, the fewer ascents have images that are far from the boundary; 0
        gives all images all ascents.
      eot: number of draws of a `Randomized` model over which the outputs of each step are averaged.
      success: (output, label) -> bool.

    References:
      Moscato, "On evolution, search, optimization, genetic algorithms and martial arts: towards
        memetic algorithms", 1989.
      Zhang et al., "A branch and bound framework for stronger adversarial attacks of ReLU
        networks", 2022: a pool of the best points guides the search, there over ReLU states.

    Guarantees:
      The result lies in the ball and in the box.
      The result does not depend on the other images.
      It takes as many forward as backward passes, at most steps * ascents.

    Two pixels that are the logits; the attack ends at its first success:

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack, key = rj.attacks.Memetic(rj.threats.Linf(0.125)), jax.random.key(0)
    >>> int(jnp.argmax(attack(jnp.ravel, key, x, 0)))
    1
    """

    threat: Threat = Linf()
    ascents: int = number(default=120, low=1)
    steps: int = number(default=20, low=1)
    population: int = number(default=16, low=2, static=True)
    stride: float = number(default=0.5)
    mutation: float = number(default=0.05, high=1.0)
    patience: float = number(default=2.0)
    eot: int = number(default=1, low=1, static=True)
    success: Success = static(default=fooled)

    @property
    @override
    def runs_between(self) -> tuple[Scalar, Scalar]:
        return jnp.minimum(self.population, self.ascents), self.ascents

    @override
    def remember(self, example: Example, nothing: jax.Array) -> Pool:
        points = jnp.stack([example.x] * self.population)
        margins = jnp.full(self.population, nothing[0])
        return Pool(points, margins, example.x, nothing[0])

    @override
    def look(
        self, example: Example, state: AscentsState, logits: jax.Array, value: jax.Array
    ) -> Pool:
        pool = state.memory
        better = value > pool.margin_top
        return pool._replace(
            x_top=jnp.where(better, state.x_adv, pool.x_top),
            margin_top=jnp.where(better, value, pool.margin_top),
        )

    @override
    def length(self, state: AscentsState) -> jax.Array:
        return jnp.where(state.runs < self.population, 1, self.stride)

    @override
    def restart(self, example: Example, state: AscentsState) -> AscentsState:
        pool = state.memory
        member = (state.runs - 1) % self.population
        better = pool.margin_top > pool.margins[member]
        point = jnp.where(better, pool.x_top, pool.points[member])
        points = pool.points.at[member].set(point)
        margins = pool.margins.at[member].max(pool.margin_top)
        start = self._start(example, points, margins, state.runs)
        pool = Pool(points, margins, start, jnp.full_like(pool.margin_top, -jnp.inf))
        return state._replace(x_adv=start, memory=pool)

    def _start(
        self, example: Example, points: jax.Array, margins: jax.Array, ascent: jax.Array
    ) -> jax.Array:
        """A random point while the pool is filled, then a child of the member whose turn it is."""
        key = jax.random.fold_in(jax.random.fold_in(example.key, 0), ascent)
        keys = jax.random.split(key, 4)
        uniform = Uniform()(keys[0], example.x, self.threat)
        corner = self.threat.step(example.x, uniform - example.x, radius(self.threat), example.x)
        rivals = jax.random.randint(keys[1], (2,), 0, self.population)
        other = points[rivals[jnp.argmax(margins[rivals])]]
        share = jax.random.uniform(keys[2], minval=0.2, maxval=0.8)
        draw = jax.random.uniform(keys[3], example.x.shape)  # one for both choices of an entry
        own = draw < self.mutation + share * (1 - self.mutation)
        child = jnp.where(own, points[ascent % self.population], other)
        child = jnp.where(draw < self.mutation, corner, child)
        fresh = jnp.where(ascent % 2, uniform, corner)
        start = jnp.where(ascent < self.population, fresh, child)
        return self.threat.project(start, example.x)
