"""The protocols everything else speaks. One example at a time: `jax.vmap` makes the batch.

Shape letters: B batch, H height, W width, C channels, K classes, D features. Images live in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

LogitsFn = Callable[[jax.Array], Any]
"""An image (H, W, C) -> logits (K,), or any pytree that the objective knows how to read."""

Model = Callable[[Any, jax.Array], tuple[Any, Any]]
"""(state, image) -> (output, state): a LogitsFn that may carry BatchNorm statistics."""

Loss = Callable[[Any, Any], jax.Array]
"""(output, target) -> scalar. `output` is what the LogitsFn returns for one example."""


Scalar = float | jax.Array
"""A number of the program or one that it computes: () where it is an array."""


class Cost(NamedTuple):
    """What an attack asked of the model for one example; a query is a forward pass."""

    forwards: jax.Array | int
    backwards: jax.Array | int


@runtime_checkable
class Threat(Protocol):
    """What the adversary may do to one image x (H, W, C): the ball of radius `eps` around it."""

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
        """The direction of unit norm that a linear function with this gradient grows most in."""
        ...

    def step(self, x_adv: jax.Array, gradient: jax.Array, size: Scalar, x: jax.Array) -> jax.Array:
        """Move `x_adv` by at most `size` along the gradient, ending in the ball and in [0, 1]."""
        ...

    def distance(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The norm of `x_adv - x`, a scalar."""
        ...


class Attack(Protocol):
    """Crafts one adversarial example.

    `y` is always the true label. `target` is what the loss compares the output with; None lets the
    attack choose (its documented default, e.g. `y`).
    """

    def __call__(
        self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array, target: Any = None
    ) -> jax.Array:
        """Image (H, W, C) in [0, 1] -> adversarial image of the same shape."""
        ...


class GradientAttack(Attack, Protocol):
    """An attack that calls its model step by step, and so can thread the model's state through."""

    def at(self, progress: jax.Array) -> GradientAttack:
        """The attack as it is after this fraction of training, in (0, 1]."""
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
