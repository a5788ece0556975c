"""Short ascents from mixtures of the best points so far: beyond the gradient of one start."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.effort import effort
from robustjax.attacks._core.iterative import Example, Iterative
from robustjax.attacks._core.randomized import Randomized, expected
from robustjax.attacks._core.success import Success, fooled, won_by
from robustjax.attacks.starts import Corner, Uniform
from robustjax.attacks.targets import Goal, TrueLabel, goal_of
from robustjax.config import config, number, static
from robustjax.losses import margin
from robustjax.threats import L2, Linf, radius
from robustjax.threats._trees import check_norm
from robustjax.typing import Cost, LogitsFn, Threat


class MemeticState(NamedTuple):
    """The state of `Memetic`.

    Attributes:
      goal: the margin that is climbed.
      looks: () gradients so far.
      pool: (P, H, W, C), the best point of each line of descent.
      margins: (P,) their margins; -inf for members that do not exist yet.
      x_adv: (H, W, C), the next image to look at.
      x_top: the image with the largest margin of the present ascent.
      margin_top: its margin.
      x_best: the image with the largest margin of all ascents; the adversarial one once `won`.
      margin_best: its margin.
      margin_clean: the margin of the clean image.
      cost: model calls so far.
      won: x_best is a success.
      broken: a margin or a gradient was NaN or infinite.
    """

    goal: Goal
    looks: jax.Array
    pool: jax.Array
    margins: jax.Array
    x_adv: jax.Array
    x_top: jax.Array
    margin_top: jax.Array
    x_best: jax.Array
    margin_best: jax.Array
    margin_clean: jax.Array
    cost: Cost
    won: jax.Array
    broken: jax.Array


@config
class Memetic(Iterative):
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

    loss = staticmethod(margin)
    target = TrueLabel()

    threat: Threat = Linf()
    ascents: int = number(default=160, low=1)
    steps: int = number(default=20, low=1)
    population: int = number(default=16, low=2, static=True)
    stride: float = number(default=0.5)
    mutation: float = number(default=0.05, high=1.0)
    patience: float = number(default=2.0)
    eot: int = number(default=1, low=1, static=True)
    success: Success = static(default=fooled)

    def __post_init__(self):
        check_norm(self, Linf, L2)

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> MemeticState:
        goal = goal_of(self, logits_fn, example.key, example)
        value = jax.eval_shape(lambda x: goal(logits_fn(x)), example.x)
        nothing = jnp.asarray(-jnp.inf, value.dtype)
        zero, no = jnp.int32(0), jnp.asarray(False)
        return MemeticState(
            goal=goal,
            looks=zero,
            pool=jnp.stack([example.x] * self.population),
            margins=jnp.full(self.population, nothing),
            x_adv=example.x,
            x_top=example.x,
            margin_top=nothing,
            x_best=example.x,
            margin_best=nothing,
            margin_clean=nothing,
            cost=Cost(zero, zero),
            won=no,
            broken=no,
        )

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: MemeticState) -> MemeticState:
        draw = jax.random.fold_in(jax.random.fold_in(example.key, 1), state.looks)

        def objective(z):
            output = expected(lambda f: f(z), logits_fn, draw, self.eot)
            return state.goal(output), output

        (value, output), gradient = jax.value_and_grad(objective, has_aux=True)(state.x_adv)
        broken = ~(jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)))
        random = isinstance(logits_fn, Randomized)
        calls = state.cost.forwards + (self.eot if random else 1)
        won = won_by(self.success, output, example) & (not random)
        top, best = value > state.margin_top, won | (value > state.margin_best)
        seen = state._replace(
            looks=state.looks + 1,
            x_top=jnp.where(top, state.x_adv, state.x_top),
            margin_top=jnp.where(top, value, state.margin_top),
            x_best=jnp.where(best, state.x_adv, state.x_best),
            margin_best=jnp.where(best, value, state.margin_best),
            margin_clean=jnp.where(state.looks == 0, value, state.margin_clean),
            cost=Cost(calls, calls),
            won=won,
            broken=state.broken | broken,
        )
        ascent, taken = jnp.divmod(state.looks, self.steps)
        size = radius(self.threat) * (1 + jnp.cos(jnp.pi * taken / self.steps))
        size = size * jnp.where(ascent < self.population, 1, self.stride)
        gradient = jnp.where(broken, 0, gradient)
        moved = seen._replace(x_adv=self.threat.step(state.x_adv, gradient, size, example.x))
        ends = taken + 1 >= self.steps
        return jax.tree.map(
            lambda a, b: jnp.where(ends, a, b), self._next(example, seen, ascent), moved
        )

    @override
    def done(self, state: MemeticState) -> jax.Array:
        least = jnp.minimum(self.population, self.ascents)
        enough = effort(least, self.ascents, state.margin_best, state.margin_clean, self.patience)
        between = state.looks % self.steps == 0
        return state.won | (between & (state.looks // self.steps >= enough))

    @override
    def result(self, example: Example, state: MemeticState) -> jax.Array:
        return state.x_best

    @override
    def spent(self, state: MemeticState) -> Cost:
        return state.cost

    @override
    def broken(self, state: MemeticState) -> jax.Array:
        return state.broken

    def gradient(
        self, logits_fn: LogitsFn, x: jax.Array, goal: Goal, key: jax.Array | None = None
    ) -> jax.Array:
        """The gradient of the margin at `x`, as `PGD.gradient`."""
        return jax.grad(lambda z: goal(expected(lambda f: f(z), logits_fn, key, self.eot)))(x)

    def _next(self, example: Example, state: MemeticState, ascent: jax.Array) -> MemeticState:
        """The state at the start of the next ascent: the last one's best point joins the pool."""
        member = ascent % self.population
        better = state.margin_top > state.margins[member]
        point = jnp.where(better, state.x_top, state.pool[member])
        pool = state.pool.at[member].set(point)
        margins = state.margins.at[member].max(state.margin_top)
        start = self._start(example, pool, margins, ascent + 1)
        nothing = jnp.full_like(state.margin_top, -jnp.inf)
        return state._replace(
            pool=pool, margins=margins, x_adv=start, x_top=start, margin_top=nothing
        )

    def _start(
        self, example: Example, pool: jax.Array, margins: jax.Array, ascent: jax.Array
    ) -> jax.Array:
        """Where an ascent begins: at a random point while the pool is filled, then at a child."""
        key = jax.random.fold_in(jax.random.fold_in(example.key, 0), ascent)
        keys = jax.random.split(key, 6)
        uniform = Uniform()(keys[0], example.x, self.threat)
        corner = Corner(1.0)(keys[1], example.x, self.threat)
        rivals = jax.random.randint(keys[2], (2,), 0, self.population)
        other = pool[rivals[jnp.argmax(margins[rivals])]]
        share = jax.random.uniform(keys[3], minval=0.2, maxval=0.8)
        own = jax.random.bernoulli(keys[4], share, example.x.shape)
        child = jnp.where(own, pool[ascent % self.population], other)
        mutates = jax.random.bernoulli(keys[5], self.mutation, example.x.shape)
        child = self.threat.project(jnp.where(mutates, corner, child), example.x)
        fresh = jnp.where(ascent % 2, uniform, corner)
        return jnp.where(ascent < self.population, fresh, child)
