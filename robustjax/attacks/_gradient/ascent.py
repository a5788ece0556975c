"""The loop of every projected ascent: begin, look, move, until the stop rule or the last step.

The source of the gradient differs: a loss (`PGD`), differences of queries (`ZerothOrder`), or a
classifier and a detector together (`JointPGD`).
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example, Iterative
from robustjax.attacks.starts import Start
from robustjax.attacks.steps import Rule, Step
from robustjax.attacks.stops import Look, Never, Stop
from robustjax.attacks.targets import Goal, Target, goal_of
from robustjax.threats import box_of
from robustjax.typing import Cost, LogitsFn, Loss, Threat


class AscentState(NamedTuple):
    """The state of an ascent.

    Attributes:
      looks: () gradients so far; one more than steps where the stop rule has halted.
      x_adv: (H, W, C), the next image to look at.
      memory: of the step rule.
      patience: of the stop rule.
      goal: what is maximised.
      halted: () whether the stop rule has halted.
      broken: () whether a step would have led to NaN; the image stays where it was.
      cost: model calls so far.
    """

    looks: jax.Array
    x_adv: jax.Array
    memory: Any
    patience: Any
    goal: Goal
    halted: jax.Array
    broken: jax.Array
    cost: Cost


class Ascent(Iterative):
    """A start, then `steps` times a gradient and a step of the rule."""

    threat: Threat
    steps: int
    start: Start
    rule: Rule
    stop: Stop = Never()
    loss: Loss
    target: Target

    @property
    @abc.abstractmethod
    def size(self) -> jax.Array:
        """The length of one step, in the norm of the threat."""

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> Any:
        return self.first(logits_fn, example, goal_of(self, logits_fn, _keys(example)[1], example))

    def first(self, logits_fn: LogitsFn, example: Example, goal: Goal) -> AscentState:
        """The state at the start, before any gradient."""
        x_start = self.start(_keys(example)[0], example.x, self.threat, logits_fn)
        calls = self.start.calls
        return AscentState(
            looks=jnp.int32(0),
            x_adv=x_start,
            memory=self.rule.init(example.x),
            patience=self.stop.init(),
            goal=goal,
            halted=jnp.asarray(False),
            broken=jnp.asarray(False),
            cost=Cost(jnp.int32(goal.forwards + calls), jnp.int32(calls)),
        )

    def aimed(self, logits_fn: LogitsFn, example: Example, state: AscentState) -> AscentState:
        """The state with the goal of this step, which is new where the target is redrawn."""
        if example.target is not None or not self.target.redraw:
            return state
        goal = goal_of(self, logits_fn, jax.random.fold_in(_keys(example)[1], state.looks), example)
        forwards, backwards = state.cost
        return state._replace(goal=goal, cost=Cost(forwards + goal.forwards, backwards))

    def probe(self, state: AscentState) -> jax.Array:
        """The point of the next gradient."""
        return self.rule.probe(state.memory, state.x_adv, self.threat, self.size)

    def move(
        self, example: Example, state: AscentState, gradient: jax.Array, output: Any, cost: Cost
    ) -> AscentState:
        """One step along the gradient, unless the stop rule halts or it leads to NaN.

        Args:
          example: the image and its label.
          state: before the step.
          gradient: (H, W, C), the direction of ascent at `probe`.
          output: of the model there; None where the gradient belongs to several outputs.
          cost: the model calls of this gradient.
        """
        x, x_adv, k = example.x, state.x_adv, state.looks
        step = Step(gradient, x_adv, x, self.threat, self.size, k / self.steps)
        look = Look(k, output, gradient, x_adv, x, example.y, self.threat)
        halt, patience = self.stop(state.patience, look)
        here, there = (x_adv, state.memory), self.rule(state.memory, step)
        lost = ~(jnp.all(jnp.isfinite(there[0])) & ~jnp.any(jnp.isnan(gradient)))
        broken, halt = state.broken | (lost & ~jnp.asarray(halt)), halt | lost
        x_adv, memory = jax.tree.map(lambda a, b: jnp.where(halt, a, b), here, there)
        return state._replace(
            looks=k + 1,
            x_adv=x_adv,
            memory=memory,
            patience=patience,
            halted=halt,
            broken=broken,
            cost=Cost(state.cost.forwards + cost.forwards, state.cost.backwards + cost.backwards),
        )

    @override
    def done(self, state: Any) -> jax.Array:
        return state.halted | (state.looks >= self.steps)

    @override
    def result(self, example: Example, state: Any) -> jax.Array:
        # Only an image that no step has moved can be where an unclipped start has put it.
        return jnp.clip(state.x_adv, *box_of(self.threat, example.x))

    @override
    def broken(self, state: Any) -> jax.Array:
        return state.broken

    @override
    def spent(self, state: Any) -> Cost:
        return state.cost


def _keys(example: Example) -> jax.Array:
    """The keys of the start and of the target, the same at every call."""
    return jax.random.split(jax.random.clone(example.key))
