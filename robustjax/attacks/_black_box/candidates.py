"""The worst of a list of candidate images: the base of searches without gradient and norm."""

from __future__ import annotations

import abc
from typing import NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example, Iterative
from robustjax.attacks._core.success import Success, won_by
from robustjax.attacks.targets import Goal, Target, check_chosen_once, goal_of
from robustjax.typing import Cost, LogitsFn, Loss


class CandidatesState(NamedTuple):
    """The state of `Candidates`: how many have been tried, and the worst of them.

    `broken`: the loss of one was NaN.
    """

    goal: Goal
    tried: jax.Array
    x_adv: jax.Array
    value: jax.Array
    won: jax.Array
    broken: jax.Array


TARGET = 2**31 - 1
"""Folded into the key that chooses a target; a candidate folds in its number."""


class Candidates(Iterative):
    """Try one candidate a step and stop at the first that succeeds.

    If none does, the result is the one with the largest loss, the first of equals.
    """

    differentiates = False

    loss: Loss
    target: Target
    success: Success

    def __post_init__(self):
        check_chosen_once(self, wrong=False)

    @property
    @abc.abstractmethod
    def count(self) -> int | jax.Array:
        """The number of candidates."""

    @abc.abstractmethod
    def candidate(self, example: Example, k: jax.Array) -> jax.Array:
        """The k-th image (H, W, C) in [0, 1]."""

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> CandidatesState:
        nothing = jnp.full((), -jnp.inf, example.x.dtype)
        goal = goal_of(self, logits_fn, jax.random.fold_in(example.key, TARGET), example)
        no = jnp.asarray(False)
        return CandidatesState(goal, jnp.int32(0), example.x, nothing, no, no)

    @override
    def step(
        self, logits_fn: LogitsFn, example: Example, state: CandidatesState
    ) -> CandidatesState:
        z = self.candidate(example, state.tried)
        output = logits_fn(z)
        value = state.goal(output).astype(state.value.dtype)
        won = won_by(self.success, output, example)
        better = won | (value > state.value)
        return state._replace(
            tried=state.tried + 1,
            x_adv=jnp.where(better, z, state.x_adv),
            value=jnp.where(better, value, state.value),
            won=won,
            broken=state.broken | jnp.isnan(value),
        )

    @override
    def done(self, state: CandidatesState) -> jax.Array:
        return state.won | (state.tried >= self.count)

    @override
    def result(self, example: Example, state: CandidatesState) -> jax.Array:
        return state.x_adv

    @override
    def broken(self, state: CandidatesState) -> jax.Array:
        return state.broken

    @override
    def spent(self, state: CandidatesState) -> Cost:
        return Cost(state.tried + state.goal.forwards, 0)
