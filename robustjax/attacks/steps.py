"""Step rules: how a gradient attack turns a gradient into a step, with a memory.

`init(x)` makes the memory. `probe` says where the gradient is taken. The call takes the step.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from typing_extensions import override

from robustjax.config import config, number
from robustjax.deterministic import ordered_sum
from robustjax.names import KINDS, Names
from robustjax.threats import box_of
from robustjax.typing import Threat

BELOW_ONE = 1 - 2.0**-24
"""The largest float32 below 1, at which a mean would forget nothing and learn nothing."""


class Step(NamedTuple):
    """The input of a rule.

    Attributes:
      gradient: the direction of ascent.
      x_adv: where the step begins.
      x: the clean image, around which the threat is.
      threat: the ball.
      size: the step's length.
      progress: the fraction of the steps already taken, in [0, 1).

    >>> x, gradient = jnp.full((1, 2, 1), 0.5), jnp.array([[[3.0], [-1.0]]])
    >>> step = rj.attacks.steps.Step(gradient, x, x, rj.threats.Linf(0.25), 0.125, progress=0.0)
    >>> x_adv, memory = rj.attacks.steps.Steepest()((), step)
    >>> print(jnp.ravel(x_adv))
    [0.625 0.375]
    """

    gradient: jax.Array
    x_adv: jax.Array
    x: jax.Array
    threat: Threat
    size: jax.Array
    progress: jax.Array


class Rule(abc.ABC):
    """One step of the ascent.

    >>> @rj.config.config
    ... class Fading(rj.attacks.steps.Rule):
    ...     def __call__(self, memory, step):
    ...         size = step.size * (1 - step.progress)
    ...         return step.threat.step(step.x_adv, step.gradient, size, step.x), memory
    >>> fading = rj.attacks.PGD(rule=Fading())
    """

    def init(self, x: jax.Array) -> Any:
        """The memory before the first step; by default none."""
        return ()

    def probe(self, memory: Any, x_adv: jax.Array, threat: Threat, size: jax.Array) -> jax.Array:
        """The point of the gradient: `x_adv`, unless the rule looks ahead."""
        return x_adv

    @abc.abstractmethod
    def __call__(self, memory: Any, step: Step) -> tuple[jax.Array, Any]:
        """(memory, step) -> (x_adv, memory)."""


@config
class Steepest(Rule):
    """The threat's own step: sign, normalised or sparse. No memory.

    >>> x, gradient = jnp.full((1, 2, 1), 0.5), jnp.array([[[3.0], [0.0]]])
    >>> step = rj.attacks.steps.Step(gradient, x, x, rj.threats.Linf(0.25), 0.125, progress=0.0)
    >>> print(jnp.ravel(rj.attacks.steps.Steepest()((), step)[0]))  # no gradient, no step
    [0.625 0.5  ]
    """

    @override
    def __call__(self, memory: tuple[()], step: Step) -> tuple[jax.Array, tuple[()]]:
        return step.threat.step(step.x_adv, step.gradient, step.size, step.x), memory


@config
class Unclipped(Rule):
    """The threat's step, clipped to the box but not to the ball. No memory.

    For training only: an evaluation rejects an image that leaves its threat.

    References: de Jorge et al., "Make some noise: reliable and efficient single-step adversarial
      training", NeurIPS 2022 (N-FGSM).

    >>> x, gradient = jnp.full((1, 2, 1), 0.5), jnp.array([[[3.0], [-1.0]]])
    >>> step = rj.attacks.steps.Step(gradient, x, x, rj.threats.Linf(0.25), 0.375, progress=0.0)
    >>> print(jnp.ravel(rj.attacks.steps.Unclipped()((), step)[0]))  # farther than eps
    [0.875 0.125]
    """

    @override
    def __call__(self, memory: tuple[()], step: Step) -> tuple[jax.Array, tuple[()]]:
        away = step.size * step.threat.steepest(step.gradient)
        return jnp.clip(step.x_adv + away, *box_of(step.threat, step.x)), memory


@config
class Momentum(Rule):
    """The threat's step along g <- decay * g + gradient / ||gradient||_1.

    References: Dong et al., "Boosting adversarial attacks with momentum", 2018, Eq. 6.

    >>> x, gradient = jnp.full((1, 2, 1), 0.5), jnp.array([[[3.0], [-1.0]]])
    >>> step = rj.attacks.steps.Step(gradient, x, x, rj.threats.Linf(0.25), 0.125, progress=0.0)
    >>> x_adv, memory = rj.attacks.steps.Momentum()(jnp.zeros_like(x), step)
    >>> print(jnp.ravel(memory))
    [ 0.75 -0.25]
    """

    decay: float = number(default=1.0)

    @override
    def init(self, x: jax.Array) -> jax.Array:
        return jnp.zeros_like(x)

    @override
    def __call__(self, memory: jax.Array, step: Step) -> tuple[jax.Array, jax.Array]:
        length = ordered_sum(jnp.abs(step.gradient).reshape(-1))
        memory = self.decay * memory + step.gradient / jnp.where(length > 0, length, 1)
        return step.threat.step(step.x_adv, memory, step.size, step.x), memory


@config
class Nesterov(Momentum):
    """Momentum whose gradient is taken one step ahead: at x_adv + decay * size * flat * g.

    flat is the L1 norm of the threat's unit step along a constant gradient, so that the look-ahead
    of a gradient whose components all have one size is exactly the step it causes. In Linf it is
    the number of components: g counts in units of mean |gradient|, as in the authors' code (with
    the sums of the paper's Eq. 7 the look-ahead would vanish as images grow). The other norms are
    ours. As in their code, the point may lie outside the ball and the box.

    References: Lin et al., "Nesterov accelerated gradient and scale invariance for adversarial
    attacks", 2020, Eq. 6 to 8.

    >>> x, memory = jnp.full((1, 2, 1), 0.5), jnp.array([[[0.75], [-0.25]]])
    >>> probe = rj.attacks.steps.Nesterov().probe(memory, x, rj.threats.Linf(0.25), size=0.125)
    >>> print(jnp.ravel(probe))
    [0.6875 0.4375]
    """

    @override
    def probe(
        self, memory: jax.Array, x_adv: jax.Array, threat: Threat, size: jax.Array
    ) -> jax.Array:
        flat = ordered_sum(jnp.abs(threat.steepest(jnp.ones_like(x_adv))).reshape(-1))
        return x_adv + self.decay * size * flat * memory


@config
class Adam(Rule):
    """Adam on the image, projected; the step drops by `drop` after half of the steps.

    The published setting is PGD(step_size=0.1, steps=10, rule=Adam()): 0.1, then 0.01.

    References: Gowal et al., "Uncovering the limits of adversarial training", 2020.

    >>> x, gradient = jnp.full((1, 2, 1), 0.5), jnp.array([[[3.0], [-1.0]]])
    >>> step = rj.attacks.steps.Step(gradient, x, x, rj.threats.Linf(0.25), 0.125, progress=0.5)
    >>> adam = rj.attacks.steps.Adam()
    >>> x_adv, memory = adam(adam.init(x), step)
    >>> [round(pixel, 4) for pixel in jnp.ravel(x_adv).tolist()]  # a tenth of the step
    [0.5125, 0.4875]
    """

    b1: float = number(default=0.9, high=BELOW_ONE)
    b2: float = number(default=0.999, high=BELOW_ONE)
    drop: float = number(default=0.1)

    def _transform(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, eps=1e-9)

    @override
    def init(self, x: jax.Array) -> Any:
        return self._transform().init(x)

    @override
    def __call__(self, memory: Any, step: Step) -> tuple[jax.Array, Any]:
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
