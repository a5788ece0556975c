"""What a gradient attack does with a gradient: one step of the ascent, with a memory.

`init(x)` makes the memory. `probe` says where the gradient is taken. The call takes the step.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from robustjax.config import config, number
from robustjax.deterministic import ordered_sum
from robustjax.spec import KINDS, Names
from robustjax.threats import box_of
from robustjax.typing import Threat


class Step(NamedTuple):
    """What a rule is given.

    Attributes:
      gradient: the direction of ascent.
      x_adv: where the step begins.
      x: the clean image, around which the threat is.
      threat: the ball.
      size: the step's length.
      progress: the fraction of the steps already taken, in [0, 1).
    """

    gradient: jax.Array
    x_adv: jax.Array
    x: jax.Array
    threat: Threat
    size: jax.Array
    progress: jax.Array


class Rule(abc.ABC):
    """One step of the ascent."""

    def init(self, x: jax.Array) -> Any:
        """The memory before the first step; by default none."""
        return ()

    def probe(self, memory: Any, x_adv: jax.Array, threat: Threat, size: jax.Array) -> jax.Array:
        """Where the gradient is taken: `x_adv`, unless the rule looks ahead."""
        return x_adv

    @abc.abstractmethod
    def __call__(self, memory: Any, step: Step) -> tuple[jax.Array, Any]:
        """(memory, step) -> (x_adv, memory)."""


@config
class Steepest(Rule):
    """The threat's own step: sign, normalised or sparse. No memory."""

    def __call__(self, memory: tuple[()], step: Step) -> tuple[jax.Array, tuple[()]]:
        """(memory, step) -> (x_adv, memory)."""
        return step.threat.step(step.x_adv, step.gradient, step.size, step.x), memory


@config
class Unclipped(Rule):
    """The threat's direction, clipped to the box and not to the ball. No memory.

    For training alone: an evaluation refuses what leaves its threat.

    References: de Jorge et al., "Make some noise: reliable and efficient single-step adversarial
      training", NeurIPS 2022 (N-FGSM).
    """

    def __call__(self, memory: tuple[()], step: Step) -> tuple[jax.Array, tuple[()]]:
        """(memory, step) -> (x_adv, memory)."""
        away = step.size * step.threat.steepest(step.gradient)
        return jnp.clip(step.x_adv + away, *box_of(step.threat, step.x)), memory


@config
class Momentum(Rule):
    """The threat's step along g <- decay * g + gradient / ||gradient||_1.

    References: Dong et al., "Boosting adversarial attacks with momentum", 2018, Eq. 6.
    """

    decay: float = number(default=1.0)

    def init(self, x: jax.Array) -> jax.Array:
        """g = 0."""
        return jnp.zeros_like(x)

    def __call__(self, memory: jax.Array, step: Step) -> tuple[jax.Array, jax.Array]:
        """(memory, step) -> (x_adv, memory)."""
        length = ordered_sum(jnp.abs(step.gradient).reshape(-1))
        memory = self.decay * memory + step.gradient / jnp.where(length > 0, length, 1)
        return step.threat.step(step.x_adv, memory, step.size, step.x), memory


@config
class Nesterov(Momentum):
    """Momentum whose gradient is taken one step ahead: at x_adv + decay * size * flat * g.

    flat is the L1 norm of the threat's unit step along a constant gradient, so that a gradient
    whose components are all of one size is looked ahead of by exactly the step it would cause. In
    Linf it is the number of components: g counts in units of mean |gradient|, as in the authors'
    code (with the sums of the paper's Eq. 7 the look-ahead would vanish as images grow); the other
    norms are ours. As in their code the point may lie outside the ball and the box.

    References: Lin et al., "Nesterov accelerated gradient and scale invariance for adversarial
    attacks", 2020, Eq. 6 to 8.
    """

    def probe(
        self, memory: jax.Array, x_adv: jax.Array, threat: Threat, size: jax.Array
    ) -> jax.Array:
        """The point ahead."""
        flat = ordered_sum(jnp.abs(threat.steepest(jnp.ones_like(x_adv))).reshape(-1))
        return x_adv + self.decay * size * flat * memory


@config
class Adam(Rule):
    """Adam on the image, projected; the step drops by `drop` after half of the steps.

    The published setting is PGD(step_size=0.1, steps=10, rule=Adam()): 0.1, then 0.01.

    References: Gowal et al., "Uncovering the limits of adversarial training", 2020.
    """

    b1: float = number(default=0.9, high=1.0)
    b2: float = number(default=0.999, high=1.0)
    drop: float = number(default=0.1)

    def _transform(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, eps=1e-9)

    def init(self, x: jax.Array) -> Any:
        """Adam's two moments and its counter."""
        return self._transform().init(x)

    def __call__(self, memory: Any, step: Step) -> tuple[jax.Array, Any]:
        """(memory, step) -> (x_adv, memory)."""
        direction: Any
        direction, memory = self._transform().update(step.gradient, memory)
        size = step.size * jnp.where(step.progress < 0.5, 1, self.drop)
        return step.threat.project(step.x_adv + size * direction, step.x), memory


KINDS[Rule] = Names(
    "step rule",
    {
        "steepest": Steepest(),
        "momentum": Momentum(),
        "nesterov": Nesterov(),
        "adam": Adam(),
        "unclipped": Unclipped(),
    },
)
