"""Auto-PGD: gradient ascent that sets its own step size (Croce & Hein 2020, 2021)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example, Iterative
from robustjax.attacks._core.randomized import Randomized, expected
from robustjax.attacks._core.success import Success, fooled, won_by
from robustjax.attacks._gradient.apgd_steps import (
    APGDLook,
    Halving,
    HalvingState,
    Sparse,
    SparseState,
)
from robustjax.attacks.starts import Surface
from robustjax.attacks.targets import Goal, Target, TrueLabel, check_chosen_once, goal_of
from robustjax.config import config, number, static
from robustjax.losses import cross_entropy
from robustjax.threats import L0, L1, Linf
from robustjax.threats._trees import scaled
from robustjax.typing import Cost, LogitsFn, Loss, Threat


class APGDState(NamedTuple):
    """The state of `APGD`.

    Attributes:
      calls: gradients so far, one more than steps in each phase.
      cost: model calls so far.
      goal: what is maximised.
      x_adv: the point to look at next.
      x_best: the point with the largest loss of this phase; the adversarial image once `won`.
      gradient_best: its gradient.
      loss_best: its loss.
      loss_first: the loss at the start of this phase.
      loss_late: the best loss after three quarters of all steps.
      memory: of the rule.
      won: x_best is a success.
      broken: a loss or a gradient was NaN.
    """

    calls: jax.Array
    cost: Cost
    goal: Goal
    x_adv: jax.Array
    x_best: jax.Array
    gradient_best: jax.Array
    loss_best: jax.Array
    loss_first: jax.Array
    loss_late: jax.Array
    memory: HalvingState | SparseState
    won: jax.Array
    broken: jax.Array


class Phase(NamedTuple):
    """A part of a run: `steps` steps in the ball of `threat`, the first after `before` calls."""

    before: jax.Array | int
    steps: jax.Array | int
    threat: Threat


@config
class APGD(Iterative):
    """Projected gradient ascent whose steps shrink when the loss stops rising.

    In Linf and L2: momentum, steps of 2 eps at first, halved at checkpoints (`Halving`); in L1:
    sparse updates of adaptive sparsity (`Sparse`). The start is noise scaled to the surface of the
    ball. A run ends at its first success, else it returns the point with the largest loss. On a
    `Randomized` model it takes all steps: an image that fools one draw may not fool the next.
    APGD-DLR is APGD(loss=dlr), APGD-T is MultiTargeted(APGD(loss=targeted_dlr)).

    Args:
      threat: the ball.
      steps: number of gradient steps; the start costs one more gradient. May be traced.
      rho: the step is halved where at most this part of the steps raised the loss (Linf, L2).
      alpha: weight of the gradient step against the momentum (Linf, L2).
      loss: (output, target) -> scalar, maximised.
      target: which class is left or gone to when the caller gives none: `attacks.targets`.
      eot: number of draws of a `Randomized` model that each loss, gradient and output averages.
      larger_radii: take 0.3 of the steps at radius 3 eps, 0.3 at 2 eps and the rest at eps, each
        phase from the projected best point of the one before: AutoAttack's choice in L1.
      success: (output, label) -> bool.

    Differences from the authors' code: noise and step size belong to the example, not the batch;
    the first checkpoint counts whether the first step raised the loss, as in the paper, where the
    code reads a row that it has not written yet; the L2 projection is onto ball and box together,
    not one after the other; the number of components that an L1 step moves is rounded down; a run
    ends at its first success (the code continues, and returns its last one).

    References:
      Croce & Hein, "Reliable evaluation of adversarial robustness", 2020, Algorithm 1 (Linf, L2).
      Croce & Hein, "Mind the box: l1-APGD for sparse adversarial attacks", 2021 (L1).

    Guarantees:
      The result lies in the ball and in the box of its threat.
      A zero gradient makes no NaN.
      Three eps, and any number of steps, compile once.

    Two pixels that are the logits; the run ends at its first success:

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack, key = rj.attacks.APGD(rj.threats.Linf(0.125), steps=100), jax.random.key(0)
    >>> int(jnp.argmax(attack(jnp.ravel, key, x, 0)))
    1
    """

    threat: Threat = Linf()
    steps: int = number(default=100, low=1)
    rho: float = number(default=0.75, high=1.0)
    alpha: float = number(default=0.75, high=1.0)
    loss: Loss = static(default=cross_entropy)
    target: Target = TrueLabel()
    eot: int = number(default=1, low=1, static=True)
    larger_radii: bool = static(default=False)
    success: Success = static(default=fooled)

    def __post_init__(self):
        check_chosen_once(self, wrong=False)
        if isinstance(self.threat, L0):
            raise ValueError("APGD is defined for Linf, L2 and L1; in L0 use PGD")

    @property
    def rule(self) -> Halving | Sparse:
        """The step rule of its norm."""
        if isinstance(self.threat, L1):
            return Sparse(guided=self.larger_radii)
        return Halving(self.rho, self.alpha)

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> APGDState:
        goal = goal_of(self, logits_fn, jax.random.fold_in(example.key, 2), example)
        x, phase = example.x, self._phase(0)
        x_start = Surface()(jax.random.fold_in(example.key, 0), x, phase.threat)
        loss = jnp.asarray(-jnp.inf, x.dtype)
        return APGDState(
            calls=jnp.int32(0),
            cost=Cost(jnp.int32(goal.forwards), jnp.int32(0)),
            goal=goal,
            x_adv=x_start,
            x_best=x_start,
            gradient_best=jnp.zeros_like(x),
            loss_best=loss,
            loss_first=loss,
            loss_late=loss,
            memory=self.rule.init(x_start, x, phase.threat, phase.steps),
            won=jnp.asarray(False),
            broken=jnp.asarray(False),
        )

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: APGDState) -> APGDState:
        x, phase, rule = example.x, self._phase(state.calls), self.rule
        number = state.calls - phase.before
        draw = jax.random.fold_in(jax.random.fold_in(example.key, 1), state.calls)
        (loss, output), gradient = self._look(logits_fn, state.x_adv, state.goal, draw)
        broken = jnp.isnan(loss) | ~jnp.all(jnp.isfinite(gradient))
        gradient = jnp.where(broken, 0, gradient)
        random = isinstance(logits_fn, Randomized)
        won = won_by(self.success, output, example) & self._is_last(state.calls) & (not random)
        better = won | (loss > state.loss_best)
        look = APGDLook(
            number,
            state.x_adv,
            gradient,
            loss,
            x_best=jnp.where(better, state.x_adv, state.x_best),
            gradient_best=jnp.where(better, gradient, state.gradient_best),
            loss_best=jnp.where(better, loss, state.loss_best),
        )
        x_adv, memory = rule(state.memory, look, x, phase.threat, phase.steps)
        draws = self.eot if random else 1
        state = state._replace(
            calls=state.calls + 1,
            cost=Cost(state.cost.forwards + draws, state.cost.backwards + draws),
            x_adv=x_adv,
            x_best=look.x_best,
            gradient_best=look.gradient_best,
            loss_best=look.loss_best,
            loss_first=jnp.where(number == 0, loss, state.loss_first),
            loss_late=jnp.where(
                4 * state.calls <= 3 * self._total, look.loss_best, state.loss_late
            ),
            memory=memory,
            won=won,
            broken=state.broken | broken,
        )
        return self._enter(example, state) if self.larger_radii else state

    def _enter(self, example: Example, state: APGDState) -> APGDState:
        """Start a phase at the best point of the last one; nothing else of it remains."""
        phase = self._phase(state.calls)
        x_start = phase.threat.project(state.x_best, example.x)
        fresh = state._replace(
            x_adv=x_start,
            x_best=x_start,
            gradient_best=jnp.zeros_like(x_start),
            loss_best=jnp.full_like(state.loss_best, -jnp.inf),
            memory=self.rule.init(x_start, example.x, phase.threat, phase.steps),
        )
        begins = state.calls == phase.before
        return jax.tree.map(lambda a, b: jnp.where(begins, a, b), fresh, state)

    @override
    def done(self, state: APGDState) -> jax.Array:
        return state.won | (state.calls >= self._total)

    @override
    def result(self, example: Example, state: APGDState) -> jax.Array:
        if not self.larger_radii:
            return state.x_best
        inside = self._is_last(state.calls)
        return jnp.where(inside, state.x_best, self.threat.project(state.x_best, example.x))

    @override
    def broken(self, state: APGDState) -> jax.Array:
        return state.broken

    @override
    def spent(self, state: APGDState) -> Cost:
        return state.cost

    def late_gain(self, state: APGDState) -> jax.Array:
        """The fraction of its gain in loss that a run made in the last quarter of its steps.

        Near 0 the loss is on its plateau; otherwise more steps may help. With `larger_radii` the
        gain is that of the last phase.
        """
        gain = state.loss_best - state.loss_first
        late = state.loss_best - state.loss_late
        return jnp.where(gain > 0, late / jnp.where(gain > 0, gain, 1), 0)

    @override
    def unfinished(self, state: APGDState) -> jax.Array:
        return ~state.won & (self.late_gain(state) > 0.1)

    def gradient(
        self, logits_fn: LogitsFn, x: jax.Array, goal: Goal, key: jax.Array | None = None
    ) -> jax.Array:
        """The direction of ascent at `x`, as `PGD.gradient`."""
        return self._look(logits_fn, x, goal, key)[1]

    def _look(self, logits_fn, x, goal, key):
        """((loss, output), gradient): means over the draws of a randomised model."""

        def look(draw, x):
            output = draw(x)
            return goal(output).astype(x.dtype), output

        def objective(x):
            return expected(lambda draw: look(draw, x), logits_fn, key, self.eot)

        return jax.value_and_grad(objective, has_aux=True)(x)

    @property
    def _schedule(self) -> tuple[tuple[float, int], ...]:
        """(radius in eps, steps) of each phase."""
        if not self.larger_radii:
            return ((1.0, self.steps),)
        part = 3 * self.steps // 10
        return (3.0, part), (2.0, part), (1.0, self.steps - 2 * part)

    @property
    def _total(self) -> int:
        """The gradients of a run that does not succeed."""
        return self.steps + len(self._schedule)

    def _is_last(self, calls) -> jax.Array:
        """Whether the phase is the one at radius eps."""
        return calls >= self._total - self._schedule[-1][1] - 1

    def _phase(self, calls) -> Phase:
        """The phase to which the next call belongs."""
        phase, before = Phase(0, self.steps, self.threat), 0
        for scale, steps in self._schedule if self.larger_radii else ():
            threat = scaled(self.threat, scale)
            new, begun = Phase(before, steps, threat), calls >= before
            phase = jax.tree.map(lambda a, b, begun=begun: jnp.where(begun, a, b), new, phase)
            before = before + steps + 1
        return phase
