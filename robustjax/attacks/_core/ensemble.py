"""An ensemble is its stages: attacks tried in turn on the examples that still resist.

`__call__` runs all stages on one example and picks; `perturb` and `evaluate` run the same stages on
the host, with the same keys, and pack the survivors of each into full tiles.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.direct import on_one_image
from robustjax.attacks._core.iterative import Example, in_threat, threat_of
from robustjax.attacks._core.success import Success, fooled, won_by
from robustjax.checks import INF, checked
from robustjax.config import config, static
from robustjax.outputs import num_classes
from robustjax.promotion import promoting
from robustjax.threats import with_radius
from robustjax.threats._trees import map_threats
from robustjax.typing import Attack, LogitsFn, Loss


class Ensemble(abc.ABC):
    """An attack made of attacks. Stage i of an example with key k uses fold_in(k, i).

    The result is that of the first stage that succeeds, else that of the last one that stayed
    inside its threat (a minimum-norm attack may not).

    On a model with four classes there are three wrong ones to go to:

    >>> ensemble: rj.attacks.Ensemble = rj.attacks.MultiTargeted(rj.attacks.PGD(), n=9)
    >>> [stage.target for stage in ensemble.stages(num_classes=4)]
    [Ranked(rank=1), Ranked(rank=2), Ranked(rank=3)]
    """

    success: Success

    @abc.abstractmethod
    def stages(self, num_classes: int) -> tuple[Attack, ...]:
        """The attacks, in order, on a model with `num_classes` classes."""

    def given(self) -> Ensemble:
        """The ensemble to run where the caller gives the class to go to."""
        return self

    @promoting
    def __call__(
        self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array, target: Any = None
    ) -> jax.Array:
        """Image (H, W, C) in the box -> adversarial image of the same shape."""
        with on_one_image(logits_fn, x):
            classes = num_classes(jax.eval_shape(logits_fn, x))
        example = Example(key, x, y, target)
        best, won = x, jnp.asarray(False)
        for i, stage in enumerate(stages_of(self, classes, target)):
            z = stage(logits_fn, jax.random.fold_in(key, i), x, y, target)
            inside = in_threat(threat_of(stage), z, x)
            best = jnp.where(inside & ~won, z, best)
            won |= inside & won_by(self.success, logits_fn(z), example)
        return best


@config
class Restarts(Ensemble):
    """One attack, n times with independent keys, all at once under vmap.

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack = rj.attacks.Restarts(rj.attacks.PGD(rj.threats.Linf(0.125), steps=2), n=4)
    >>> attack = jax.jit(attack, static_argnums=0)  # the model
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))
    [0.625 0.75 ]
    """

    attack: Attack
    n: int = static(default=10)
    success: Success = static(default=fooled)

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"restarts must be at least 1, got {self.n}")

    @override
    def stages(self, num_classes: int) -> tuple[Attack, ...]:
        return (self.attack,) * self.n

    @promoting
    @override
    def __call__(
        self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array, target: Any = None
    ) -> jax.Array:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(self.n))
        tries = jax.vmap(lambda k: self.attack(logits_fn, k, x, y, target))(keys)
        inside = jax.vmap(lambda z: in_threat(threat_of(self.attack), z, x))(tries)
        example = Example(key, x, y, target)
        won = inside & jax.vmap(lambda z: won_by(self.success, logits_fn(z), example))(tries)
        last = self.n - 1 - jnp.argmax(inside[::-1])
        best = tries[jnp.where(jnp.any(won), jnp.argmax(won), last)]
        return jnp.where(jnp.any(inside), best, x)


@config
class WorstOf(Ensemble):
    """Several attacks in turn: an example is robust if it resists all of them.

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> weak, strong = (rj.attacks.FGSM(rj.threats.Linf(eps)) for eps in (0.03125, 0.125))
    >>> attack = jax.jit(rj.attacks.WorstOf((weak, strong)), static_argnums=0)
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))
    [0.625 0.75 ]
    """

    attacks: tuple[Attack, ...]
    success: Success = static(default=fooled)

    def __post_init__(self):
        if isinstance(self.attacks, tuple) and not self.attacks:
            raise ValueError("WorstOf needs at least one attack")

    @override
    def stages(self, num_classes: int) -> tuple[Attack, ...]:
        return self.attacks


@checked
def worst_of_losses(attack: Attack, losses: Sequence[Loss]) -> WorstOf:
    """The attack once for each objective, reduced to the worst case per example.

    A loss is any function (output, target) -> scalar, your own or that of a detector.

    >>> attack = rj.attacks.worst_of_losses(rj.attacks.PGD(), [rj.losses.margin, rj.losses.dlr])
    >>> [stage.loss.__name__ for stage in attack.stages(num_classes=10)]
    ['margin', 'dlr']
    """
    return WorstOf(tuple(replace(attack, loss=loss) for loss in losses))


def stages_of(ensemble: Ensemble, num_classes: int, target: Any) -> tuple[Attack, ...]:
    """The stages on a model with `num_classes` classes, with a given target or without."""
    return (ensemble if target is None else ensemble.given()).stages(num_classes)


def replace(attack: Attack, **fields: Any) -> Any:
    """The attack with other fields.

    Raises:
      ValueError: the attack has no such field.
    """
    known = [f.name for f in dataclasses.fields(attack)] if dataclasses.is_dataclass(attack) else []
    if missing := set(fields) - set(known):
        raise ValueError(f"{type(attack).__name__} has no field {', '.join(sorted(missing))}")
    return dataclasses.replace(attack, **fields)  # type: ignore[type-var]


def leaves(attack: Attack, num_classes: int) -> tuple[Attack, ...]:
    """The different attacks that an ensemble, however nested, runs."""
    if not isinstance(attack, Ensemble):
        return (attack,)
    found = (leaf for stage in attack.stages(num_classes) for leaf in leaves(stage, num_classes))
    return tuple({id(leaf): leaf for leaf in found}.values())


@checked(eps=(0, INF))
def with_eps(attack: Attack, eps: float) -> Attack:
    """The same attack with this radius in every threat: the same program, other data.

    >>> rj.attacks.with_eps(rj.attacks.Restarts(rj.attacks.PGD()), 0.5).attack.threat.eps
    0.5
    """
    return map_threats(lambda threat: with_radius(threat, eps), attack)
