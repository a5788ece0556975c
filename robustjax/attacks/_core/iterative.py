"""An attack as a state machine: begin, step until done, result.

`__call__` runs it to the end on one example. `perturb` and `evaluate` run the same machine from the
host: an example that is done leaves its slot to the next one, so fooled images stop costing, and a
killed run resumes from its states (`_engine/slots.py`).
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.direct import on_one_image
from robustjax.attacks._core.randomized import after
from robustjax.config import config
from robustjax.promotion import promoting
from robustjax.threats import box_of, radius
from robustjax.typing import Attack, Cost, LogitsFn, Threat


class Example(NamedTuple):
    """One problem.

    Attributes:
      key: PRNG key of this example and this attack; draw from fold_in(key, something), never twice
        from the same.
      x: the clean image (H, W, C) in the box.
      y: the true label ().
      target: what the caller gives to go to or to compare with, or None.
    """

    key: jax.Array
    x: jax.Array
    y: jax.Array
    target: Any = None


TOLERANCE = 1e-6
"""Slack for results: float32 rounding, relative to eps and to the pixels."""


def threat_of(attack: Any) -> Threat | None:
    """The attack's threat, or None."""
    return getattr(attack, "threat", None)


def in_threat(threat: Threat | None, x_adv: jax.Array, x: jax.Array) -> jax.Array:
    """Whether an image is inside the ball; True where there is none."""
    if threat is None:
        return jnp.asarray(True)
    return threat.distance(x_adv, x) <= largest_distance(radius(threat), _scale(x))


def in_box(threat: Threat | None, x_adv: jax.Array, x: jax.Array) -> jax.Array:
    """Whether all pixels are in the box of the threat; [0, 1] without one."""
    low, high = box_of(threat, x)
    slack = TOLERANCE * _scale(x)
    return jnp.all((x_adv >= low - slack) & (x_adv <= high + slack))


def largest_distance(radius: Any, scale: Any = 1.0) -> Any:
    """The largest distance that counts as inside a ball, for pixels of this size."""
    return radius * (1 + TOLERANCE) + TOLERANCE * scale


def _scale(x: jax.Array) -> jax.Array:
    """The scale of the pixels' rounding: 1 for pixels in [0, 1]."""
    return jnp.maximum(jnp.max(jnp.abs(x)), 1)


class Iterative(abc.ABC):
    """An attack made of steps. A state is any pytree of arrays (no typed keys: fold_in a counter).

    Everything is per example; `jax.vmap` makes the batch. It runs both branches of a `cond`, so a
    step should call the model the same number of times whatever the state.

    An `Iterative` leaves its slot to the next image where it is done:

    >>> isinstance(rj.attacks.APGD(), rj.attacks.Iterative)
    True
    """

    differentiates: ClassVar[bool] = True
    """False if no step differentiates the model; then the CPU takes its steps in a loop."""

    @abc.abstractmethod
    def begin(self, logits_fn: LogitsFn, example: Example) -> Any:
        """The state before the first step."""

    @abc.abstractmethod
    def step(self, logits_fn: LogitsFn, example: Example, state: Any) -> Any:
        """One step. It is not called, or its result is dropped, once `done`."""

    @abc.abstractmethod
    def done(self, state: Any) -> jax.Array:
        """bool (): no more steps, because of success or the end of the budget."""

    @abc.abstractmethod
    def result(self, example: Example, state: Any) -> jax.Array:
        """The adversarial image (H, W, C) in the box, at any time."""

    @abc.abstractmethod
    def spent(self, state: Any) -> Cost:
        """The model calls so far, `begin` included."""

    def unfinished(self, state: Any) -> jax.Array:
        """bool (): the loss was still rising at the end of the budget; more steps may help."""
        return jnp.asarray(False)

    def broken(self, state: Any) -> jax.Array:
        """bool (): the objective or its gradient was NaN or infinite, so some step led nowhere."""
        return jnp.asarray(False)

    @promoting
    def __call__(
        self, logits_fn: LogitsFn, key: jax.Array, x: jax.Array, y: jax.Array, target: Any = None
    ) -> jax.Array:
        """Image (H, W, C) in the box -> adversarial image of the same shape.

        One of less than 32 bits, such as float16, is attacked in float32 and rounded to be seen.
        """
        if jnp.finfo(x.dtype).bits < 32:
            rounded = after(logits_fn, lambda z: z.astype(x.dtype))
            return self(rounded, key, x.astype(jnp.float32), y, target).astype(x.dtype)
        example = Example(key, x, y, target)
        with on_one_image(logits_fn, x):
            state = jax.lax.while_loop(
                lambda state: ~self.done(state),
                lambda state: self.step(logits_fn, example, state),
                self.begin(logits_fn, example),
            )
        return jax.lax.stop_gradient(self.result(example, state))


@config
class MinimumNorm(Iterative):
    """An attack that looks for the nearest adversarial image, however far.

    It returns the clean image where it finds none. In an evaluation it counts as a success if the
    image lies within `threat.eps`; eps = inf counts every one. The distances that the report keeps
    give the accuracy at every other radius: one run, the whole robustness curve.

    The smallest change of this image is 0.25, and it is what comes back although eps is 0.1:

    >>> x = jnp.array([[[0.75], [0.25]]])
    >>> attack: rj.attacks.MinimumNorm = rj.attacks.DeepFool(rj.threats.Linf(0.1))
    >>> z = attack(jnp.ravel, jax.random.key(0), x, 0)
    >>> round(float(attack.threat.distance(z, x)), 2)
    0.26
    """

    threat: Threat


UNKNOWN = Cost(-1, -1)
"""The cost of an attack that does not state it."""


@runtime_checkable
class Priced(Protocol):
    """An attack in one call that states its cost."""

    @property
    def cost(self) -> Cost:
        """The model calls for one example."""
        ...


@config
class AtOnce(Iterative):
    """An attack that is one call, as a state machine of one step."""

    attack: Attack

    @property
    def threat(self) -> Threat | None:
        """The threat of the attack, or None."""
        return getattr(self.attack, "threat", None)

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(False), example.x

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: Any) -> Any:
        x_adv = self.attack(logits_fn, *example)
        return jnp.asarray(True), x_adv.astype(example.x.dtype)

    @override
    def done(self, state: Any) -> jax.Array:
        return state[0]

    @override
    def result(self, example: Example, state: Any) -> jax.Array:
        return state[1]

    @override
    def spent(self, state: Any) -> Cost:
        return self.attack.cost if isinstance(self.attack, Priced) else UNKNOWN


def iterative(attack: Attack) -> Iterative:
    """The attack as a state machine."""
    return attack if isinstance(attack, Iterative) else AtOnce(attack)
