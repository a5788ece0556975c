"""Many short ascents of a margin, as many as an image deserves."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.effort import effort
from robustjax.attacks._core.iterative import Example, Iterative
from robustjax.attacks._core.randomized import Randomized, expected
from robustjax.attacks._core.success import Success, is_class, won_by
from robustjax.attacks.targets import Goal, TrueLabel, goal_of
from robustjax.losses import margin
from robustjax.outputs import float_logits, logits_of
from robustjax.threats import L2, Linf, radius
from robustjax.threats._trees import check_norm
from robustjax.typing import Cost, LogitsFn, Scalar, Threat


class AscentsState(NamedTuple):
    """The state of `ShortAscents`.

    Attributes:
      goal: the margin that decides: of any wrong class, or of the class that the caller gives.
      runs: () ascents that have ended.
      looks: () gradients so far.
      cost: model calls so far.
      x_adv: (H, W, C), the next image to look at.
      x_best: the image with the largest margin of all ascents; the adversarial one once `won`.
      margin_best: its margin, negative until the goal is reached.
      margin_clean: the margin of the clean image.
      memory: what an attack keeps from one ascent for the next.
      won: x_best is a success.
      broken: a margin or a gradient was NaN or infinite.
    """

    goal: Goal
    runs: jax.Array
    looks: jax.Array
    cost: Cost
    x_adv: jax.Array
    x_best: jax.Array
    margin_best: jax.Array
    margin_clean: jax.Array
    memory: Any
    won: jax.Array
    broken: jax.Array


class ShortAscents(Iterative):
    """The loop of `AdaptiveRestarts` and `Memetic`; the first ascent begins at the clean image."""

    loss = staticmethod(margin)
    target = TrueLabel()

    threat: Threat
    steps: int
    patience: float
    eot: int
    success: Success

    def __post_init__(self):
        check_norm(self, Linf, L2)

    @property
    @abc.abstractmethod
    def runs_between(self) -> tuple[Scalar, Scalar]:
        """The ascents of an image whose margin does not move, and of one at the boundary."""

    @abc.abstractmethod
    def remember(self, example: Example, nothing: jax.Array) -> Any:
        """The memory before the first look; `nothing` is (K,), -inf."""

    @abc.abstractmethod
    def look(
        self, example: Example, state: AscentsState, logits: jax.Array, value: jax.Array
    ) -> Any:
        """The memory after a look at `state.x_adv`, whose margin is `value`."""

    @abc.abstractmethod
    def restart(self, example: Example, state: AscentsState) -> AscentsState:
        """The state at the start of ascent number `state.runs`."""

    def direction(self, example: Example, state: AscentsState, logits: jax.Array) -> jax.Array:
        """(K,) the gradient of this ascent's objective with respect to the logits."""
        return jax.grad(state.goal)(logits)

    def length(self, state: AscentsState) -> Scalar:
        """The length of this ascent's steps, relative to those that begin with 2 eps."""
        return 1

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> AscentsState:
        if example.target is not None and not is_class(example.target):
            raise ValueError(
                f"{type(self).__name__} goes to a class, so a target is an integer; got "
                f"{jax.tree.map(jnp.shape, example.target)}"
            )
        logits = logits_of(jax.eval_shape(logits_fn, example.x))
        zero, no = jnp.int32(0), jnp.asarray(False)
        nothing = jnp.asarray(-jnp.inf, jnp.promote_types(logits.dtype, jnp.float32))
        return AscentsState(
            goal=goal_of(self, logits_fn, example.key, example),
            runs=zero,
            looks=zero,
            cost=Cost(zero, zero),
            x_adv=example.x,
            x_best=example.x,
            margin_best=nothing,
            margin_clean=nothing,
            memory=self.remember(example, jnp.full(logits.shape, nothing)),
            won=no,
            broken=no,
        )

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: AscentsState) -> AscentsState:
        draw = jax.random.fold_in(jax.random.fold_in(example.key, 1), state.looks)

        def model(z):
            output = expected(lambda f: f(z), logits_fn, draw, self.eot)
            return float_logits(output), output

        logits, pull, output = jax.vjp(model, state.x_adv, has_aux=True)
        (gradient,) = pull(self.direction(example, state, logits))
        value = state.goal(output)
        broken = ~(jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)))
        random = isinstance(logits_fn, Randomized)
        calls = state.cost.forwards + (self.eot if random else 1)
        won = won_by(self.success, output, example) & (not random)
        better = won | (value > state.margin_best)
        seen = state._replace(
            looks=state.looks + 1,
            cost=Cost(calls, calls),
            x_best=jnp.where(better, state.x_adv, state.x_best),
            margin_best=jnp.where(better, value, state.margin_best),
            margin_clean=jnp.where(state.looks == 0, value, state.margin_clean),
            memory=self.look(example, state, logits, value),
            won=won,
            broken=state.broken | broken,
        )
        taken = state.looks - state.runs * self.steps
        size = radius(self.threat) * (1 + jnp.cos(jnp.pi * taken / self.steps))
        gradient, size = jnp.where(broken, 0, gradient), size * self.length(state)
        moved = seen._replace(x_adv=self.threat.step(state.x_adv, gradient, size, example.x))
        ends = taken + 1 >= self.steps
        again = self.restart(example, seen._replace(runs=seen.runs + 1))
        return jax.tree.map(lambda a, b: jnp.where(ends, a, b), again, moved)

    @override
    def done(self, state: AscentsState) -> jax.Array:
        least, most = self.runs_between
        enough = effort(least, most, state.margin_best, state.margin_clean, self.patience)
        between = state.looks == state.runs * self.steps
        return state.won | (between & (state.runs >= enough))

    @override
    def result(self, example: Example, state: AscentsState) -> jax.Array:
        return state.x_best

    @override
    def spent(self, state: AscentsState) -> Cost:
        return state.cost

    @override
    def broken(self, state: AscentsState) -> jax.Array:
        return state.broken

    def gradient(
        self, logits_fn: LogitsFn, x: jax.Array, goal: Goal, key: jax.Array | None = None
    ) -> jax.Array:
        """The gradient of the margin at `x`, as `PGD.gradient`."""
        return jax.grad(lambda z: goal(expected(lambda f: f(z), logits_fn, key, self.eot)))(x)
