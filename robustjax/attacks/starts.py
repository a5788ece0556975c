"""Where a gradient attack begins: (key, x, threat, logits_fn) -> a point of ball and box."""

from __future__ import annotations

import abc
import dataclasses

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.randomized import redraw
from robustjax.attacks._core.success import logits_of
from robustjax.config import config, number
from robustjax.spec import KINDS, Names
from robustjax.threats import L0, L1, Linf, box_of, radius
from robustjax.threats._trees import scaled
from robustjax.typing import LogitsFn, Threat


class Start(abc.ABC):
    """The first point of an ascent."""

    @property
    def calls(self) -> int:
        """Forward and backward passes of the model that finding it takes."""
        return 0

    @abc.abstractmethod
    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
        """Image (H, W, C) -> first point. Only some starts look at the model."""


@config
class Zero(Start):
    """The clean image."""

    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
        """The clean image."""
        return x


@config
class Uniform(Start):
    """A random point of the ball of radius scale * eps (`Threat.sample`)."""

    scale: float = number(default=1.0)

    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
        """A random point of the scaled ball, in the box."""
        return scaled(threat, self.scale).sample(key, x)


@config
class UnclippedUniform(Uniform):
    """A random point of the ball, outside the box too: the first gradient is taken there.

    The first step leads into the box. In Linf it is `Uniform` before that is clipped. On MNIST,
    whose pixels are mostly 0 or 1, a clipped start leaves half of them where they were.

    References: Wong et al., "Fast is better than free", ICLR 2020, in their code for MNIST; that
      for CIFAR clips.

    Raises:
      ValueError: the ball is not bounded without the box (`L0`), or the threat cannot go without.

    >>> threat, x = rj.threats.Linf(0.3), jnp.zeros((4, 4, 1))
    >>> bool((UnclippedUniform()(jax.random.key(0), x, threat) < 0).any())
    True
    """

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
        if isinstance(threat, L0) or not hasattr(threat, "bounds"):
            raise ValueError(
                "an unclipped start needs a ball that is bounded without its box, and a threat "
                f"with `bounds`, got {threat}: take Linf, L2 or L1, or another start"
            )
        return super().__call__(key, x, dataclasses.replace(threat, bounds=None))


@config
class Gaussian(Start):
    """x + sigma * N(0, 1), projected: the start of TRADES."""

    sigma: float = number(default=1e-3)

    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
        """A point near x, in the ball and in the box."""
        return threat.project(x + self.sigma * jax.random.normal(key, x.shape, x.dtype), x)


@config
class Corner(Start):
    """A step of length fraction * eps along a random gradient: the start of R+FGSM."""

    fraction: float = number(default=0.5, high=1.0)

    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
        """A point at distance fraction * eps, up to the box."""
        noise = jax.random.normal(key, x.shape, x.dtype)
        return threat.step(x, noise, self.fraction * radius(threat), x)


@config
class Surface(Start):
    """Noise moved onto the ball's surface, then into the box: the start of APGD.

    Uniform noise divided by its largest component in Linf, Gaussian noise divided by its length in
    L2; in L1, where division would change every pixel a little, projected, which keeps few.
    """

    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
        """A point at distance eps, up to the box."""
        if isinstance(threat, Linf):
            share = threat.steepest(jnp.ones_like(x))
            noise = jax.random.uniform(key, x.shape, x.dtype, -1, 1) * share
        else:
            low, high = box_of(threat, x)
            noise = jax.random.normal(key, x.shape, x.dtype) * (low < high)
        if isinstance(threat, L1):
            return threat.project(x + noise, x)
        length = jnp.maximum(threat.distance(noise, jnp.zeros_like(x)), 1e-12)
        return threat.project(x + radius(threat) * noise / length, x)


@config
class OutputDiversified(Start):
    """Uniform in the ball, then `steps` steps along the gradient of <w, logits>, w ~ U[-1, 1]^K.

    Starts that are far apart in the output, where noise in the input hardly differs (ODI).

    Args:
      steps: how many, may be traced.
      fraction: the length of each, in units of eps.

    References: Tashiro et al., "Diversity can be transferred: output diversification for white- and
    black-box attacks", 2020, Eq. 2 and 3; the uniform point before is that of the authors' code.
    """

    steps: int = number(default=2)
    fraction: float = number(default=1.0)

    @property
    def calls(self) -> int:
        """`steps`."""
        return self.steps

    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
        """A point of the ball, in the box."""
        if logits_fn is None:
            raise ValueError("OutputDiversified needs the model: pass logits_fn")
        key_start, key_direction, key_draws = jax.random.split(key, 3)
        num_classes = logits_of(jax.eval_shape(logits_fn, x)).size
        w = jax.random.uniform(key_direction, (num_classes,), x.dtype, -1, 1)

        def step(k, x_adv):
            draw = redraw(logits_fn, jax.random.fold_in(key_draws, k))
            gradient = jax.grad(lambda z: jnp.sum(w * logits_of(draw(z))))(x_adv)
            return threat.step(x_adv, gradient, self.fraction * radius(threat), x)

        return jax.lax.fori_loop(0, self.steps, step, threat.sample(key_start, x))


KINDS[Start] = Names(
    "start",
    {
        "zero": Zero(),
        "uniform": Uniform(),
        "unclipped": UnclippedUniform(),
        "gaussian": Gaussian(),
        "corner": Corner(),
        "odi": OutputDiversified(),
    },
)
