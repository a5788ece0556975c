"""When a gradient attack leaves an image where it is: asked before every step, for each example.

`at` is the rule as it is after a fraction of training. `init` makes its memory. The call says
whether to halt. What has halted stays: where the model is deterministic and does not mix examples
(eval mode), it says the same of the image at every later step, so the mask is exact.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from robustjax.attacks._core.success import logits_of
from robustjax.config import config, number
from robustjax.spec import KINDS, Names
from robustjax.threats import radius
from robustjax.typing import Threat


class Look(NamedTuple):
    """What is known before a step.

    Attributes:
      number: of steps that are done.
      output: the model's, at the image.
      gradient: the direction of ascent.
      x_adv: the image.
      x: the clean one.
      y: its label.
      threat: the ball.
    """

    number: jax.Array
    output: Any
    gradient: jax.Array
    x_adv: jax.Array
    x: jax.Array
    y: jax.Array
    threat: Threat


class Stop(abc.ABC):
    """When to halt."""

    def at(self, progress: jax.Array) -> Stop:
        """The rule after this fraction of training, in (0, 1]."""
        return self

    def init(self) -> Any:
        """The memory before the first step."""
        return ()

    @abc.abstractmethod
    def __call__(self, memory: Any, look: Look) -> tuple[jax.Array | bool, Any]:
        """(memory, look) -> (halt, memory)."""


@config
class Never(Stop):
    """All steps are taken."""

    def __call__(self, memory: tuple[()], look: Look) -> tuple[bool, tuple[()]]:
        """-> (False, ())."""
        return False, memory


@config
class After(Stop):
    """Halt after `steps` steps: as an array, fewer for some examples than for others."""

    steps: int = number(default=0)

    def __call__(self, memory: tuple[()], look: Look) -> tuple[jax.Array, tuple[()]]:
        """(memory, look) -> (halt, memory)."""
        return look.number >= self.steps, memory


@config
class Misclassified(Stop):
    """Halt where the prediction is wrong, tau steps after it first was: friendly adversarial data.

    Attributes:
      tau: how many steps are taken from wrongly classified images.
      later: fractions of training; after each of them tau is one more.

    References: Zhang et al., "Attacks which do not kill training make adversarial learning
      stronger", ICML 2020, algorithm 1; early-stopped PGD in Pang et al. 2021.
    """

    tau: int = number(default=0)
    later: tuple[float, ...] = number(default=(), high=1)

    def at(self, progress: jax.Array) -> Misclassified:
        """With the tau of that time."""
        return Misclassified(self.tau + sum(jnp.int32(progress > t) for t in self.later))

    def init(self) -> jax.Array:
        """The number of steps left from where the prediction is wrong."""
        return jnp.asarray(self.tau, jnp.int32)

    def __call__(self, memory: jax.Array, look: Look) -> tuple[jax.Array, jax.Array]:
        """(memory, look) -> (halt, memory)."""
        wrong = jnp.argmax(logits_of(look.output)) != look.y
        return wrong & (memory == 0), memory - (wrong & (memory > 0))


@config
class Stationary(Stop):
    """Halt where the first-order stationary condition holds: FOSC <= c.

    FOSC(x_k) = max over the ball of <z - x_k, g> = eps ||g||_* - <x_k - x, g>, 0 where the loss can
    grow no more to first order. The authors' code measures from the random start instead of x.

    Attributes:
      c: the largest value that counts as stationary, at the beginning of training.
      end: the fraction of training at which it has fallen to 0, linearly.

    References: Wang et al., "On the convergence and robustness of adversarial training", ICML 2019,
      Eq. 5 and algorithm 1.
    """

    c: float = number(default=0.5)
    end: float = number(default=100 / 120, low=0, high=1)

    def at(self, progress: jax.Array) -> Stationary:
        """With the c of that time."""
        return dataclasses.replace(self, c=self.c * jnp.maximum(1 - progress / self.end, 0))

    def __call__(self, memory: tuple[()], look: Look) -> tuple[jax.Array, tuple[()]]:
        """(memory, look) -> (halt, memory)."""
        return fosc(look) <= self.c, memory


def fosc(look: Look) -> jax.Array:
    """The first-order stationary condition, (); in pixels times the gradient's unit."""
    away = radius(look.threat) * look.threat.steepest(look.gradient) - (look.x_adv - look.x)
    return jnp.sum(away * look.gradient)


KINDS[Stop] = Names(
    "stop rule",
    {
        "never": Never(),
        "after": After(),
        "misclassified": Misclassified(),
        "stationary": Stationary(),
    },
)
