"""Schedules as functions of the fraction t of training done, in (0, 1]; their values are factors.

A step's t counts the step itself, as in the authors' code: (epoch + (i + 1) / steps) / epochs. The
fractions of the unified baseline (Pang et al. 2021) are `Piecewise()`: 100 / 110 and 105 / 110.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from robustjax.config import config, number
from robustjax.spec import KINDS, Names


@config
class Constant:
    """1 throughout."""

    def __call__(self, t: jax.Array) -> jax.Array:
        """The factor at t."""
        return jnp.ones_like(t)


@config
class Piecewise:
    """1, multiplied by `factor` at each of `boundaries`: t < b_1 -> 1, t < b_2 -> factor, ..."""

    boundaries: tuple[float, ...] = number(default=(100 / 110, 105 / 110), high=1)
    factor: float = number(default=0.1)

    def __call__(self, t: jax.Array) -> jax.Array:
        """The factor at t."""
        return jnp.power(self.factor, sum(jnp.float32(t >= b) for b in self.boundaries))


@config
class Cosine:
    """(1 + cos(pi t)) / 2 (Loshchilov & Hutter 2017)."""

    def __call__(self, t: jax.Array) -> jax.Array:
        """The factor at t."""
        return 0.5 * (1 + jnp.cos(jnp.pi * t))


@config
class Linear:
    """Linear between the points (times[i], values[i]); the default is Rice et al. 2020's."""

    times: tuple[float, ...] = (0.0, 1 / 3, 2 / 3, 1.0)
    values: tuple[float, ...] = (1.0, 1.0, 0.1, 0.01)

    def __post_init__(self):
        if len(self.times) != len(self.values):
            raise ValueError(
                "a linear schedule needs a value at each time, got "
                f"{len(self.times)} times and {len(self.values)} values"
            )

    def __call__(self, t: jax.Array) -> jax.Array:
        """The factor at t."""
        return jnp.interp(t, jnp.array(self.times), jnp.array(self.values))


@config
class OneCycle:
    """0 -> 1 at `peak` -> 0, linear (Smith 2018). Peaks: Wong et al. 2020 0.5, Rice et al. 0.4."""

    peak: float = number(default=0.5, low=0, high=1)

    def __call__(self, t: jax.Array) -> jax.Array:
        """The factor at t."""
        return jnp.interp(t, jnp.array([0.0, self.peak, 1.0]), jnp.array([0.0, 1.0, 0.0]))


@config
class MultipleDecay:
    """1 - floor(n t) / n: n equal drops (Rice et al. 2020 use 10)."""

    drops: int = number(default=10, low=1)

    def __call__(self, t: jax.Array) -> jax.Array:
        """The factor at t."""
        return 1 - jnp.floor(jnp.minimum(t, 1 - 1e-6) * self.drops) / self.drops


Schedule = Constant | Piecewise | Cosine | Linear | OneCycle | MultipleDecay

SCHEDULES = KINDS[Schedule] = Names(
    "schedule",
    {
        "constant": Constant(),
        "piecewise": Piecewise(),
        "cosine": Cosine(),
        "linear": Linear(),
        "one-cycle": OneCycle(),
        "multiple-decay": MultipleDecay(),
    },
)
"""The schedules by the names that the command line uses."""


def warm_up(t: jax.Array, fraction: float) -> jax.Array:
    """t / fraction up to 1; 1 throughout where fraction is 0."""
    return jnp.minimum(1.0, t / jnp.maximum(fraction, 1e-9))  # of no run is a step so short
