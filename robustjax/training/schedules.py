"""Schedules: factors as functions of t in (0, 1], the fraction of training done.

A step's t includes the step itself, as in the authors' code: (epoch + (i + 1) / steps) / epochs.
The default `Piecewise()` drops at 100 / 110 and 105 / 110, as the unified baseline of Pang et al.
(2021).
"""

from __future__ import annotations

import abc

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.checks import checked
from robustjax.config import config, number
from robustjax.names import KINDS, Names


class Schedule(abc.ABC):
    """A factor over time; subclasses are `@config` classes.

    >>> @rj.config.config
    ... class Sqrt(Schedule):
    ...     def __call__(self, t):
    ...         return 1 / jnp.sqrt(1 + t)
    >>> recipe = rj.training.Recipe(schedule=Sqrt())
    """

    @abc.abstractmethod
    def __call__(self, t: jax.Array) -> jax.Array:
        """The factor at t, the fraction of training done."""


@config
class Constant(Schedule):
    """1 throughout.

    >>> float(Constant()(jnp.float32(0.7)))
    1.0
    """

    @override
    def __call__(self, t: jax.Array) -> jax.Array:
        return jnp.ones_like(t)


@config
class Piecewise(Schedule):
    """1, multiplied by `factor` at each of `boundaries`: t < b_1 -> 1, t < b_2 -> factor, ...

    >>> [round(float(Piecewise((0.5, 0.75))(t)), 2) for t in (0.4, 0.6, 0.8)]
    [1.0, 0.1, 0.01]
    """

    boundaries: tuple[float, ...] = number(default=(100 / 110, 105 / 110), high=1)
    factor: float = number(default=0.1)

    @override
    def __call__(self, t: jax.Array) -> jax.Array:
        return jnp.power(self.factor, sum(jnp.float32(t >= b) for b in self.boundaries))


@config
class CosineDecay(Schedule):
    """(1 + cos(pi t)) / 2 (Loshchilov & Hutter 2017).

    >>> round(float(CosineDecay()(jnp.float32(0.5))), 3)
    0.5
    """

    @override
    def __call__(self, t: jax.Array) -> jax.Array:
        return 0.5 * (1 + jnp.cos(jnp.pi * t))


@config
class Interpolated(Schedule):
    """Linear between the points (times[i], values[i]); the default is that of Rice et al. 2020.

    >>> float(Interpolated((0.0, 1.0), (1.0, 0.0))(jnp.float32(0.25)))
    0.75
    """

    times: tuple[float, ...] = (0.0, 1 / 3, 2 / 3, 1.0)
    values: tuple[float, ...] = (1.0, 1.0, 0.1, 0.01)

    def __post_init__(self):
        if len(self.times) != len(self.values):
            raise ValueError(
                "a linear schedule needs one value per time, got "
                f"{len(self.times)} times and {len(self.values)} values"
            )

    @override
    def __call__(self, t: jax.Array) -> jax.Array:
        return jnp.interp(t, jnp.array(self.times), jnp.array(self.values))


@config
class OneCycle(Schedule):
    """0 -> 1 at `peak` -> 0, linear (Smith 2018). Peaks: Wong et al. 2020 0.5, Rice et al. 0.4.

    >>> [float(OneCycle(0.5)(jnp.float32(t))) for t in (0.25, 0.5, 0.75)]
    [0.5, 1.0, 0.5]
    """

    peak: float = number(default=0.5, low=0, high=1)

    @override
    def __call__(self, t: jax.Array) -> jax.Array:
        return jnp.interp(t, jnp.array([0.0, self.peak, 1.0]), jnp.array([0.0, 1.0, 0.0]))


@config
class MultipleDecay(Schedule):
    """1 - floor(n t) / n: n equal drops (Rice et al. 2020 use 10).

    >>> [float(MultipleDecay(2)(jnp.float32(t))) for t in (0.2, 0.7)]
    [1.0, 0.5]
    """

    drops: int = number(default=10, low=1)

    @override
    def __call__(self, t: jax.Array) -> jax.Array:
        return 1 - jnp.floor(jnp.minimum(t, 1 - 1e-6) * self.drops) / self.drops


SCHEDULES = KINDS[Schedule] = Names(
    "schedule",
    {
        "constant": Constant(),
        "piecewise": Piecewise(),
        "cosine": CosineDecay(),
        "linear": Interpolated(),
        "one-cycle": OneCycle(),
        "multiple-decay": MultipleDecay(),
    },
)
"""The schedules by name; `register` adds one."""


@checked
def register(name: str, schedule: Schedule) -> None:
    """Register a schedule of your own for the command line and `robustjax.spec`.

    Raises:
      ValueError: the name belongs to robustjax or another module.

    >>> register("early", Piecewise((0.1,)))
    >>> float(SCHEDULES["early"](0.05))
    1.0
    """
    SCHEDULES.register(name, schedule)


@checked(t=["", (0, 1)], fraction=(0, 1))
def warm_up(t: jax.Array, fraction: float) -> jax.Array:
    """t / fraction, at most 1; 1 throughout if fraction is 0.

    >>> [float(warm_up(jnp.float32(t), 0.5)) for t in (0.25, 0.75)]
    [0.5, 1.0]
    """
    return jnp.minimum(1.0, t / jnp.maximum(fraction, 1e-9))  # shorter than any step
