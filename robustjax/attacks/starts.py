"""Starts of gradient attacks: (key, x, threat, logits_fn) -> a point in ball and box."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.randomized import redraw
from robustjax.attacks._core.success import logits_of
from robustjax.config import config, number
from robustjax.names import KINDS, Names
from robustjax.threats import L0, L1, Linf, box_of, radius
from robustjax.threats._trees import scaled
from robustjax.typing import LogitsFn, Threat


class Start(abc.ABC):
    """The first point of an ascent.

    >>> @rj.config.config
    ... class Inverted(rj.attacks.starts.Start):
    ...     def __call__(self, key, x, threat, logits_fn=None):
    ...         return threat.project(1 - x, x)
    >>> x, threat = jnp.array([[[0.75], [0.0]]]), rj.threats.Linf(0.125)
    >>> print(jnp.ravel(Inverted()(jax.random.key(0), x, threat)))
    [0.625 0.125]
    """

    @property
    def calls(self) -> int:
        """The number of forward passes that finding it takes, and of backward passes."""
        return 0

    @abc.abstractmethod
    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
        """Image (H, W, C) -> first point, in ball and box. Only some starts look at the model."""


@config
class Zero(Start):
    """The clean image.

    >>> x = jnp.array([[[0.75], [0.0]]])
    >>> print(jnp.ravel(rj.attacks.starts.Zero()(jax.random.key(0), x, rj.threats.Linf(0.125))))
    [0.75 0.  ]
    """

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
        return x


@config
class Uniform(Start):
    """A random point of the ball of radius scale * eps (`Threat.sample`).

    >>> x, threat = jnp.full((1, 2, 1), 0.5), rj.threats.Linf(0.25)
    >>> x_start = rj.attacks.starts.Uniform(scale=0.5)(jax.random.key(0), x, threat)
    >>> bool(threat.distance(x_start, x) <= 0.125)
    True
    """

    scale: float = number(default=1.0)

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
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
        ball: Any = threat  # a user's own need not derive from ours
        return super().__call__(key, x, dataclasses.replace(ball, bounds=None))


@config
class Gaussian(Start):
    """x + sigma * N(0, 1), projected: the start of TRADES.

    >>> x, threat = jnp.full((1, 100, 1), 0.5), rj.threats.Linf(0.1)
    >>> x_start = rj.attacks.starts.Gaussian(sigma=1e-3)(jax.random.key(0), x, threat)
    >>> round(float(jnp.std(x_start - x)), 3)
    0.001
    """

    sigma: float = number(default=1e-3)

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
        return threat.project(x + self.sigma * jax.random.normal(key, x.shape, x.dtype), x)


@config
class Corner(Start):
    """A step of length fraction * eps along a random gradient: the start of R+FGSM.

    >>> x, threat = jnp.full((1, 2, 1), 0.5), rj.threats.Linf(0.25)
    >>> x_start = rj.attacks.starts.Corner(fraction=0.5)(jax.random.key(0), x, threat)
    >>> print(jnp.ravel(abs(x_start - x)))
    [0.125 0.125]
    """

    fraction: float = number(default=0.5, high=1.0)

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
        noise = jax.random.normal(key, x.shape, x.dtype)
        return threat.step(x, noise, self.fraction * radius(threat), x)


@config
class Surface(Start):
    """Noise moved onto the ball's surface, then into the box: the start of APGD.

    Uniform noise divided by its largest component in Linf, Gaussian noise divided by its length in
    L2. In L1 the noise is projected instead, which changes few pixels; division would change all.

    >>> x, threat = jnp.full((1, 2, 1), 0.5), rj.threats.Linf(0.125)
    >>> x_start = rj.attacks.starts.Surface()(jax.random.key(0), x, threat)
    >>> float(threat.distance(x_start, x))
    0.125
    """

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
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

    Such starts (ODI) differ in the output, where noise in the input hardly matters.

    Args:
      steps: the number of steps; may be traced.
      fraction: the length of each, in units of eps.

    References: Tashiro et al., "Diversity can be transferred: output diversification for white- and
    black-box attacks", 2020, Eq. 2 and 3; the uniform point before is that of the authors' code.

    >>> x, threat = jnp.full((1, 2, 1), 0.5), rj.threats.Linf(0.25)
    >>> start = rj.attacks.starts.OutputDiversified(steps=2)
    >>> print(jnp.ravel(abs(start(jax.random.key(0), x, threat, logits_fn=jnp.ravel) - x)))
    [0.25 0.25]
    """

    steps: int = number(default=2)
    fraction: float = number(default=1.0)

    @property
    @override
    def calls(self) -> int:
        return self.steps

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, threat: Threat, logits_fn: LogitsFn | None = None
    ) -> jax.Array:
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
