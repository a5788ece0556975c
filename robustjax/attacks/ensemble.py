"""An ensemble is its stages: what is tried in turn on the examples that still resist.

`__call__` runs all stages of one example and picks; `perturb` and `evaluate` run the same stages on
the host, with the same keys, and pack the survivors of each into full tiles.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from robustjax.config import config, static
from robustjax.threats import map_threats
from robustjax.typing import Attack, LogitsFn


def prediction(logits: jax.Array) -> jax.Array:
    """The class with the largest logit; -1, which is never right, where a logit is NaN."""
    return jnp.where(jnp.any(jnp.isnan(logits)), -1, jnp.argmax(logits))


def fooled(output: jax.Array, y: jax.Array) -> jax.Array:
    """Success of an attack, targeted or not: the prediction is not the true label."""
    return prediction(output) != y


class Ensemble(abc.ABC):
    """An attack made of attacks. Stage i of an example with key k uses fold_in(k, i).

    The result is that of the first stage that fools the model, else that of the last stage.
    """

    @property
    @abc.abstractmethod
    def stages(self) -> tuple[Attack, ...]:
        """What is tried, in order."""

    @abc.abstractmethod
    def __call__(
        self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array, target: Any = None
    ) -> jax.Array:
        """Image (H, W, C) in [0, 1] -> adversarial image of the same shape."""


@config
class Restarts(Ensemble):
    """One attack, n times with independent keys, all at once under vmap."""

    attack: Attack
    n: int = static(10)

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"restarts must be at least 1, got {self.n}")

    @property
    def stages(self) -> tuple[Attack, ...]:
        """The attack n times."""
        return (self.attack,) * self.n

    def __call__(
        self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array, target: Any = None
    ) -> jax.Array:
        """The first restart that fools the model, else the last."""
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(self.n))
        tries = jax.vmap(lambda k: self.attack(logits_fn, k, x, y, target))(keys)
        return _first(tries, jax.vmap(lambda z: fooled(logits_fn(z), y))(tries))


@config
class WorstOf(Ensemble):
    """Several attacks in turn: an example is robust if it resists every one of them."""

    attacks: tuple[Attack, ...]

    def __post_init__(self):
        if isinstance(self.attacks, tuple) and not self.attacks:
            raise ValueError("WorstOf needs at least one attack")

    @property
    def stages(self) -> tuple[Attack, ...]:
        """The attacks."""
        return self.attacks

    def __call__(
        self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array, target: Any = None
    ) -> jax.Array:
        """The result of the first attack that fools the model, else that of the last."""
        tries = jnp.stack(
            [
                attack(logits_fn, jax.random.fold_in(key, i), x, y, target)
                for i, attack in enumerate(self.attacks)
            ]
        )
        return _first(tries, jnp.stack([fooled(logits_fn(z), y) for z in tries]))


def leaves(attack: Attack) -> tuple[Attack, ...]:
    """The different attacks that an ensemble, however nested, runs."""
    if not isinstance(attack, Ensemble):
        return (attack,)
    found = (leaf for stage in attack.stages for leaf in leaves(stage))
    return tuple({id(leaf): leaf for leaf in found}.values())


def with_eps(attack: Attack, eps: float) -> Attack:
    """The same attack, every threat in it with this radius: same program, other data."""
    return map_threats(lambda threat: dataclasses.replace(threat, eps=eps), attack)


def _first(tries: jax.Array, success: jax.Array) -> jax.Array:
    return tries[jnp.where(jnp.any(success), jnp.argmax(success), len(tries) - 1)]
