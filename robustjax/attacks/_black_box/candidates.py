"""The worst of a list of candidate images: what searches without a gradient or a norm share."""

from __future__ import annotations

import abc
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustjax.attacks._core.iterative import Example, Iterative
from robustjax.attacks._core.success import Success
from robustjax.attacks.targets import check_aim
from robustjax.typing import Cost, LogitsFn, Loss


class Worst(NamedTuple):
    """The state of `Candidates`: how many have been tried, and the worst of them."""

    tried: jax.Array
    x_adv: jax.Array
    value: jax.Array
    won: jax.Array


class Candidates(Iterative):
    """Asks the model about one candidate a step and stops at the first that succeeds.

    If none does, the result is the one with the largest loss, the first of equals.
    """

    loss: Loss
    success: Success

    @property
    @abc.abstractmethod
    def count(self) -> int | jax.Array:
        """The number of candidates."""

    @abc.abstractmethod
    def candidate(self, example: Example, k: jax.Array) -> jax.Array:
        """The k-th image (H, W, C) in [0, 1]."""

    def begin(self, logits_fn: LogitsFn, example: Example) -> Worst:
        """Nothing tried."""
        nothing = jnp.full((), -jnp.inf, example.x.dtype)
        return Worst(jnp.zeros((), jnp.int32), example.x, nothing, jnp.asarray(False))

    def step(self, logits_fn: LogitsFn, example: Example, state: Worst) -> Worst:
        """One candidate, one query."""
        z = self.candidate(example, state.tried)
        output = logits_fn(z)
        if example.target is None:
            check_aim(self.loss, "true")
        target = example.y if example.target is None else example.target
        value = self.loss(output, target).astype(state.value.dtype)
        won = self.success(output, example.y)
        better = won | (value > state.value)
        return Worst(
            state.tried + 1,
            jnp.where(better, z, state.x_adv),
            jnp.where(better, value, state.value),
            won,
        )

    def done(self, state: Worst) -> jax.Array:
        """At success or after the last candidate."""
        return state.won | (state.tried >= self.count)

    def result(self, example: Example, state: Worst) -> jax.Array:
        """The worst so far; the clean image before the first."""
        return state.x_adv

    def spent(self, state: Worst) -> Cost:
        """One query per candidate."""
        return Cost(state.tried, 0)
