"""The protocols that everything else is written in. One example each; `jax.vmap` makes the batch.

Shape letters: B batch, H height, W width, C channels, K classes, D features. Images live in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

LogitsFn = Callable[[jax.Array], Any]
"""An image (H, W, C) -> logits (K,), or any pytree that the loss knows how to read."""

Model = Callable[[Any, jax.Array], tuple[Any, Any]]
"""(state, image) -> (output, state): a LogitsFn that may carry BatchNorm statistics."""

Loss = Callable[[Any, Any], jax.Array]
"""(output, target) -> scalar. `output` is the LogitsFn's return value for one example."""

Scalar = float | jax.Array
"""A Python float or an array of shape ()."""


class Cost(NamedTuple):
    """The number of passes through the model that an attack used for one example.

    A query is a forward pass. The cost of one PGD step:

    >>> rj.typing.Cost(forwards=1, backwards=1)
    Cost(forwards=1, backwards=1)
    """

    forwards: jax.Array | int
    backwards: jax.Array | int


@runtime_checkable
class Threat(Protocol):
    """What the adversary may do to one image x (H, W, C): the ball of radius `eps` around it.

    Any object with these members is a threat:

    >>> isinstance(rj.threats.L2(0.5), rj.typing.Threat)
    True
    """

    @property
    def eps(self) -> float:
        """The radius."""
        ...

    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The nearest point to `x_adv` in the ball around `x` and in [0, 1]."""
        ...

    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """A random point of the ball around `x` and in [0, 1]."""
        ...

    def steepest(self, gradient: jax.Array) -> jax.Array:
        """The direction of unit norm in which a linear function with this gradient grows most."""
        ...

    def step(self, x_adv: jax.Array, gradient: jax.Array, size: Scalar, x: jax.Array) -> jax.Array:
        """Move `x_adv` by at most `size` along the gradient, ending in the ball and in [0, 1]."""
        ...

    def distance(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The norm of `x_adv - x`, a scalar."""
        ...


class Attack(Protocol):
    """A function that crafts one adversarial example.

    `y` is always the true label. The loss compares the output with `target`; None lets the attack
    choose (its documented default, for instance `y`).

    >>> def darken(logits_fn, key, x, y, target=None):
    ...     return jnp.maximum(x - 8 / 255, 0)
    >>> attack: rj.typing.Attack = darken
    >>> logits_fn, key = lambda x: x.mean((0, 1)), jax.random.key(0)
    >>> round(float(attack(logits_fn, key, jnp.ones((8, 8, 10)), 3).min()), 3)
    0.969
    """

    def __call__(
        self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array, target: Any = None
    ) -> jax.Array:
        """Image (H, W, C) in [0, 1] -> adversarial image of the same shape."""
        ...


class GradientAttack(Attack, Protocol):
    """An attack that calls its model step by step, and so can carry the model's state along.

    With a model that counts its own calls:

    >>> def model(calls, x):
    ...     return jnp.stack([x.sum(), -x.sum()]), calls + 1
    >>> attack: rj.typing.GradientAttack = rj.attacks.PGD(rj.threats.Linf(0.1), steps=3)
    >>> x_adv, calls = attack.ascend(model, 0, jax.random.key(0), jnp.ones((2, 2, 1)) / 2, 0)
    >>> int(calls)
    3
    """

    def at(self, progress: jax.Array) -> GradientAttack:
        """The attack after this fraction of training, in (0, 1]."""
        ...

    def ascend(
        self,
        model: Model,
        state: Any,
        key: jax.Array,
        x: jax.Array,
        y: jax.Array,
        target: Any = None,
    ) -> tuple[jax.Array, Any]:
        """The attack on a model with state -> (adversarial image, state)."""
        ...
