"""Stop rules: whether a gradient attack halts, asked before every step of each example.

`at` is the rule after a fraction of training. `init` makes its memory. The call says whether to
halt. A halted image stays: a deterministic model that does not mix examples (eval mode) would give
the same output at every later step, so the mask is exact.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.success import logits_of
from robustjax.config import config, number
from robustjax.names import KINDS, Names
from robustjax.threats import radius
from robustjax.typing import Threat


class Look(NamedTuple):
    """The input of a stop rule, before a step.

    Attributes:
      number: of steps taken so far.
      output: of the model, at `x_adv`.
      gradient: the direction of ascent.
      x_adv: the image.
      x: the clean one.
      y: its label.
      threat: the ball.

    >>> x, gradient = jnp.full((1, 2, 1), 0.5), jnp.ones((1, 2, 1))
    >>> look = rj.attacks.stops.Look(3, jnp.ravel(x), gradient, x, x, 0, rj.threats.Linf(0.1))
    >>> halt, memory = rj.attacks.stops.After(steps=3)((), look)
    >>> halt
    True
    """

    number: jax.Array
    output: Any
    gradient: jax.Array
    x_adv: jax.Array
    x: jax.Array
    y: jax.Array
    threat: Threat


class Stop(abc.ABC):
    """Whether to halt.

    >>> @rj.config.config
    ... class Confident(rj.attacks.stops.Stop):
    ...     def __call__(self, memory, look):
    ...         return jax.nn.softmax(look.output)[look.y] < 0.1, memory
    >>> attack = rj.attacks.PGD(stop=Confident())
    """

    def at(self, progress: jax.Array) -> Stop:
        """The rule after this fraction of training, in (0, 1]."""
        return self

    def init(self) -> Any:
        """The memory before the first step; by default none."""
        return ()

    @abc.abstractmethod
    def __call__(self, memory: Any, look: Look) -> tuple[jax.Array | bool, Any]:
        """(memory, look) -> (halt, memory)."""


@config
class Never(Stop):
    """Take all steps.

    >>> rj.attacks.PGD().stop
    Never()
    """

    @override
    def __call__(self, memory: tuple[()], look: Look) -> tuple[bool, tuple[()]]:
        return False, memory


@config
class After(Stop):
    """Halt after `steps` steps; an array under vmap sets a number for each example.

    >>> x, bim = jnp.array([[[0.75], [0.625]]]), rj.attacks.BIM(rj.threats.Linf(0.25), steps=8)
    >>> attack = dataclasses.replace(bim, stop=rj.attacks.stops.After(steps=1))
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))
    [0.71875 0.65625]
    """

    steps: int = number(default=0)

    @override
    def __call__(self, memory: tuple[()], look: Look) -> tuple[jax.Array, tuple[()]]:
        return look.number >= self.steps, memory


@config
class Misclassified(Stop):
    """Halt tau steps after the prediction is first wrong: friendly adversarial data.

    Attributes:
      tau: the number of steps taken from wrongly classified images.
      later: fractions of training; tau grows by one after each.

    References: Zhang et al., "Attacks which do not kill training make adversarial learning
      stronger", ICML 2020, algorithm 1; early-stopped PGD in Pang et al. 2021.

    >>> x, bim = jnp.array([[[0.75], [0.625]]]), rj.attacks.BIM(rj.threats.Linf(0.25), steps=8)
    >>> attack = dataclasses.replace(bim, stop=rj.attacks.stops.Misclassified())
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))  # after three of eight steps
    [0.65625 0.71875]
    """

    tau: int = number(default=0)
    later: tuple[float, ...] = number(default=(), high=1)

    @override
    def at(self, progress: jax.Array) -> Misclassified:
        return Misclassified(self.tau + sum(jnp.int32(progress > t) for t in self.later))

    @override
    def init(self) -> jax.Array:
        return jnp.asarray(self.tau, jnp.int32)

    @override
    def __call__(self, memory: jax.Array, look: Look) -> tuple[jax.Array, jax.Array]:
        wrong = jnp.argmax(logits_of(look.output)) != look.y
        return wrong & (memory == 0), memory - (wrong & (memory > 0))


@config
class Stationary(Stop):
    """Halt where the first-order stationary condition holds: FOSC <= c.

    FOSC(x_k) = max over the ball of <z - x_k, g> = eps ||g||_* - <x_k - x, g>. It is 0 where, to
    first order, the loss cannot grow. The authors' code measures from the random start, not from x.

    Attributes:
      c: the largest value that counts as stationary, at the beginning of training.
      end: the fraction of training at which it has fallen to 0, linearly.

    References: Wang et al., "On the convergence and robustness of adversarial training", ICML 2019,
      Eq. 5 and algorithm 1.

    >>> x, gradient = jnp.full((1, 2, 1), 0.5), jnp.array([[[1.0], [-1.0]]])
    >>> corner, threat = x + 0.25 * gradient, rj.threats.Linf(0.25)
    >>> look = rj.attacks.stops.Look(3, jnp.ravel(corner), gradient, corner, x, 0, threat)
    >>> bool(rj.attacks.stops.Stationary()((), look)[0])
    True
    """

    c: float = number(default=0.5)
    end: float = number(default=100 / 120, low=0, high=1)

    @override
    def at(self, progress: jax.Array) -> Stationary:
        return dataclasses.replace(self, c=self.c * jnp.maximum(1 - progress / self.end, 0))

    @override
    def __call__(self, memory: tuple[()], look: Look) -> tuple[jax.Array, tuple[()]]:
        return fosc(look) <= self.c, memory


def fosc(look: Look) -> jax.Array:
    """First-order stationary condition: (), in pixels times the unit of the gradient."""
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
