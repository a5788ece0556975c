"""Where a gradient attack begins: (key, x, threat) -> an image in [0, 1]."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from robustjax.config import check_number, config
from robustjax.threats import L1, Linf
from robustjax.typing import Threat


@config
class Zero:
    """The clean image."""

    def __call__(self, key: jax.Array, x: jax.Array, threat: Threat) -> jax.Array:
        """The clean image."""
        return x


@config
class Uniform:
    """A random point of the ball of radius scale * eps (`Threat.sample`)."""

    scale: float = 1.0

    def __post_init__(self):
        check_number("scale", self.scale)

    def __call__(self, key: jax.Array, x: jax.Array, threat: Threat) -> jax.Array:
        """A random point of the scaled ball, in [0, 1]."""
        return dataclasses.replace(threat, eps=self.scale * threat.eps).sample(key, x)


@config
class Gaussian:
    """x + sigma * N(0, 1), projected: the start of TRADES."""

    sigma: float = 1e-3

    def __post_init__(self):
        check_number("sigma", self.sigma)

    def __call__(self, key: jax.Array, x: jax.Array, threat: Threat) -> jax.Array:
        """A point near x, in the ball and in [0, 1]."""
        return threat.project(x + self.sigma * jax.random.normal(key, x.shape, x.dtype), x)


@config
class Corner:
    """A step of length fraction * eps along a random gradient: the start of R+FGSM."""

    fraction: float = 0.5

    def __post_init__(self):
        check_number("fraction", self.fraction, high=1.0)

    def __call__(self, key: jax.Array, x: jax.Array, threat: Threat) -> jax.Array:
        """A point at distance fraction * eps, up to the box."""
        noise = jax.random.normal(key, x.shape, x.dtype)
        return threat.step(x, noise, self.fraction * threat.eps, x)


@config
class Surface:
    """Noise moved onto the ball's surface, then into [0, 1]: the start of APGD.

    Uniform noise divided by its largest component in Linf, Gaussian noise divided by its length in
    L2; in L1, where division would change every pixel a little, projected, which keeps few.
    """

    def __call__(self, key: jax.Array, x: jax.Array, threat: Threat) -> jax.Array:
        """A point at distance eps, up to the box."""
        if isinstance(threat, Linf):
            noise = jax.random.uniform(key, x.shape, x.dtype, -1, 1)
        else:
            noise = jax.random.normal(key, x.shape, x.dtype)
        if isinstance(threat, L1):
            return threat.project(x + noise, x)
        length = jnp.maximum(threat.distance(noise, jnp.zeros_like(x)), 1e-12)
        return threat.project(x + threat.eps * noise / length, x)
