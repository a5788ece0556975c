"""An ensemble is its stages: what is tried in turn on the examples that still resist.

`__call__` runs all stages of one example and picks; `perturb` and `evaluate` run the same stages on
the host, with the same keys, and pack the survivors of each into full tiles.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from robustjax.attacks._core.iterative import within
from robustjax.attacks._core.success import Success, fooled, logits_of
from robustjax.config import config, static
from robustjax.threats import map_threats, with_radius
from robustjax.typing import Attack, LogitsFn, Loss


class Ensemble(abc.ABC):
    """An attack made of attacks. Stage i of an example with key k uses fold_in(k, i).

    The result is that of the first stage that succeeds, else that of the last one that stayed
    inside its threat model (a minimum-norm attack may not).
    """

    success: Success

    @abc.abstractmethod
    def stages(self, num_classes: int) -> tuple[Attack, ...]:
        """What is tried, in order, on a model of so many classes."""

    def __call__(
        self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array, target: Any = None
    ) -> jax.Array:
        """Image (H, W, C) in the box -> adversarial image of the same shape."""
        num_classes = logits_of(jax.eval_shape(logits_fn, x)).size
        best, won = x, jnp.asarray(False)
        for i, stage in enumerate(self.stages(num_classes)):
            z = stage(logits_fn, jax.random.fold_in(key, i), x, y, target)
            allowed = within(stage, z, x)
            best = jnp.where(allowed & ~won, z, best)
            won |= allowed & self.success(logits_fn(z), y)
        return best


@config
class Restarts(Ensemble):
    """One attack, n times with independent keys, all at once under vmap."""

    attack: Attack
    n: int = static(default=10)
    success: Success = static(default=fooled)

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"restarts must be at least 1, got {self.n}")

    def stages(self, num_classes: int) -> tuple[Attack, ...]:
        """The attack n times."""
        return (self.attack,) * self.n

    def __call__(
        self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array, target: Any = None
    ) -> jax.Array:
        """The first restart that succeeds, else the last inside the threat, else the image."""
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(self.n))
        tries = jax.vmap(lambda k: self.attack(logits_fn, k, x, y, target))(keys)
        inside = jax.vmap(lambda z: within(self.attack, z, x))(tries)
        won = inside & jax.vmap(lambda z: self.success(logits_fn(z), y))(tries)
        last = self.n - 1 - jnp.argmax(inside[::-1])
        best = tries[jnp.where(jnp.any(won), jnp.argmax(won), last)]
        return jnp.where(jnp.any(inside), best, x)


@config
class WorstOf(Ensemble):
    """Several attacks in turn: an example is robust if it resists every one of them."""

    attacks: tuple[Attack, ...]
    success: Success = static(default=fooled)

    def __post_init__(self):
        if isinstance(self.attacks, tuple) and not self.attacks:
            raise ValueError("WorstOf needs at least one attack")

    def stages(self, num_classes: int) -> tuple[Attack, ...]:
        """The attacks."""
        return self.attacks


@config
class MultiTargeted(Ensemble):
    """One attack towards each of the n most likely wrong classes of the clean image.

    The attack has the fields `label` and `rank`, such as `PGD` (Gowal et al. 2019), `APGD` and
    `FAB`; the ranks are data of one program. A model of K classes has K - 1 of them at most.
    """

    attack: Attack
    n: int = static(default=9)
    success: Success = static(default=fooled)

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")

    def stages(self, num_classes: int) -> tuple[Attack, ...]:
        """The attack at ranks 1 to min(n, K - 1)."""
        ranks = range(1, min(self.n, num_classes - 1) + 1)
        return tuple(dataclasses.replace(self.attack, label="ranked", rank=r) for r in ranks)


def worst_of_losses(attack: Attack, losses: Sequence[Loss]) -> WorstOf:
    """The attack once for each objective: a set of them, reduced by the worst case per example.

    The losses may be those of the user or of a detector: anything of (output, target).
    """
    return WorstOf(tuple(dataclasses.replace(attack, loss=loss) for loss in losses))


def leaves(attack: Attack, num_classes: int) -> tuple[Attack, ...]:
    """The different attacks that an ensemble, however nested, runs."""
    if not isinstance(attack, Ensemble):
        return (attack,)
    found = (leaf for stage in attack.stages(num_classes) for leaf in leaves(stage, num_classes))
    return tuple({id(leaf): leaf for leaf in found}.values())


def with_eps(attack: Attack, eps: float) -> Attack:
    """The same attack, every threat in it with this radius: same program, other data."""
    return map_threats(lambda threat: with_radius(threat, eps), attack)
