"""The protocols that everything else is written in. One example each; `jax.vmap` makes the batch.

Shape letters: B batch, H height, W width, C channels, K classes, D features. Images live in the
box of the threat, [0, 1] by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

LogitsFn = Callable[[jax.Array], Any]
"""An image (H, W, C) -> logits (K,), or any pytree that the loss knows how to read."""

Model = Callable[[Any, jax.Array], tuple[Any, Any]]
"""(state, image) -> (output, state): a LogitsFn that may carry BatchNorm statistics."""

Loss = Callable[[Any, Any], jax.Array]
"""(output, target) -> scalar. `output` is the LogitsFn's return value for one example."""

Scalar = float | np.ndarray | jax.Array
"""A Python float or an array of shape ()."""

Eps = float | np.ndarray | jax.Array
"""A radius: a number, or an array with one per feature, per example or both; see `Threat`."""

Box = tuple[Any, Any]
"""The least and the largest value of every component of an image: numbers, or arrays like `Eps`."""


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

    A threat of one's own is a `@config` class with these members and any other fields; everything
    that changes a radius (`curve`, warm-ups, schedules, starts) replaces `eps` and keeps the rest.
    `threats.Ball` is a base class with bounds and a mask.

    Pixels lie in [0, 1] unless the threat has a method `box(x)` as well: the least and the largest
    value (low, high) of every component, whatever the norm allows; both are x where nothing may
    change.

    eps is a number or an array. Of an array the number of axes decides: three, (H, W, C) or what
    broadcasts to it, is one per feature; one, (N,), is one per example, which `perturb`, `evaluate`
    and `curve` hand out; four is both. The same holds for fields named `bounds` and `mask`. The
    largest entry of an eps per feature is called the radius, and `distance` is in its units: it is
    at most the radius if and only if the image is inside.

    >>> isinstance(rj.threats.L2(0.5), rj.typing.Threat)
    True
    """

    @property
    def eps(self) -> Eps:
        """The radius."""
        ...

    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The nearest point to `x_adv` in the ball around `x` and in the box."""
        ...

    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """A random point of the ball around `x` and in the box."""
        ...

    def steepest(self, gradient: jax.Array) -> jax.Array:
        """The direction of unit norm in which a linear function with this gradient grows most."""
        ...

    def step(self, x_adv: jax.Array, gradient: jax.Array, size: Scalar, x: jax.Array) -> jax.Array:
        """Move `x_adv` by at most `size` along the gradient, ending in the ball and in the box."""
        ...

    def distance(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The norm of `x_adv - x`, a scalar."""
        ...


class Attack(Protocol):
    """A function that crafts one adversarial example.

    `y` is always the true label. `target` is a class to go to (or the arrays that a loss such as
    `kl` is compared with); None lets the attack choose.

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
        """Image (H, W, C) in the box -> adversarial image of the same shape."""
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
        reference: Any = None,
    ) -> tuple[jax.Array, Any]:
        """The attack on a model with state -> (adversarial image, state).

        Its loss compares the output with `reference` and is maximised; None: the attack's choice.
        """
        ...
