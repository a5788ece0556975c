"""Transforms of the input, through which attacks on one model transfer better to others.

A transform maps an objective, (key, image) -> scalar, to another one. In a tuple they act in order
on the way to the model: `(ScaleInvariant(), DiverseInput())` resizes each scaled copy.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from robustjax.attacks._core.bpda import bpda, identity
from robustjax.attacks._core.randomized import Randomized, redraw
from robustjax.config import config, number, static
from robustjax.deterministic import ordered_sum
from robustjax.names import KINDS, Names
from robustjax.typing import LogitsFn

Objective = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, image (H, W, C)) -> scalar."""


class Transform(abc.ABC):
    """An objective seen through a change of the image or of the gradient.

    >>> @rj.config.config
    ... class Mirrored(rj.attacks.transforms.Transform):
    ...     def __call__(self, objective):
    ...         return lambda key, x: objective(key, x[:, ::-1])
    >>> attack = rj.attacks.PGD(transforms=(Mirrored(),))
    """

    copies: int = 1
    """The number of times that the objective is called."""

    @abc.abstractmethod
    def __call__(self, objective: Objective) -> Objective:
        """The transformed objective."""


@config
class DiverseInput(Transform):
    """With probability `p` the image is shrunk and put at a random place on black.

    The height is uniform on {floor(low H), ..., H - 1} and the width in proportion; the resizing is
    bilinear, and every place is equally likely. The original enlarges, for models that take any
    size; later work shrinks by the same ratio, as here. The original never uses the last row and
    column of places; we do.

    Args:
      p: probability; 0 leaves the image as it is.
      low: the smallest height, as a fraction of H.

    References: Xie et al., "Improving transferability of adversarial examples with input
    diversity", 2019.

    >>> view = jax.jit(rj.attacks.transforms.DiverseInput(p=1.0, low=0.9).view)
    >>> white = jnp.ones((10, 10, 1))
    >>> round(float(view(jax.random.key(0), white).mean()), 2)  # 9 x 9 of 10 x 10 pixels
    0.81
    """

    moves_pixels = True

    p: float = number(default=0.5, high=1.0)
    low: float = number(default=0.9, high=1.0)

    @override
    def __call__(self, objective: Objective) -> Objective:

        def seen(key, x):
            key_view, key_rest = jax.random.split(key)
            return objective(key_rest, self.view(key_view, x))

        return seen

    def view(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """One draw: (H, W, C) -> (H, W, C)."""
        key_coin, key_size, key_top, key_left = jax.random.split(key, 4)
        rows, columns = x.shape[:2]
        low = jnp.maximum(jnp.floor(self.low * rows), 1).astype(int)
        height = jax.random.randint(key_size, (), low, rows)
        width = -(-height * columns // rows)
        top = jax.random.randint(key_top, (), 0, rows - height + 1)
        left = jax.random.randint(key_left, (), 0, columns - width + 1)
        return jnp.where(jax.random.bernoulli(key_coin, self.p), shrink(x, height, top, left), x)


def shrink(x: jax.Array, height: jax.Array, top: jax.Array, left: jax.Array) -> jax.Array:
    """The image (H, W, C), bilinearly resized to `height`, its corner at (top, left), on black."""
    scale = jnp.full(2, height / x.shape[0], x.dtype)
    place = jnp.stack([top, left]).astype(x.dtype)
    return jax.image.scale_and_translate(
        x, x.shape, (0, 1), scale, place, "linear", antialias=False
    )


@config
class TranslationInvariant(Transform):
    """The gradient is convolved with a Gaussian of `size` x `size` pixels, sigma (size - 1) / 6.

    That is the gradient averaged over shifts of the image, if the model's gradient shifts along.
    Each channel is padded with zeros. The value of the objective does not change.

    Args:
      size: of the kernel, odd; the paper takes 15 for images of 299 pixels, and smaller images
        usually take 7.

    References: Dong et al., "Evading defenses to transferable adversarial examples by
    translation-invariant attacks", 2019, Eq. 7.

    >>> dot = jnp.float32([0, 1, 0]).reshape(1, 3, 1)
    >>> blur = jax.jit(rj.attacks.transforms.TranslationInvariant(size=3).blur)
    >>> [round(pixel, 2) for pixel in blur(dot).ravel().tolist()]
    [0.01, 0.96, 0.01]
    """

    moves_pixels = True

    size: int = static(default=15)

    def __post_init__(self):
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"the kernel's size must be odd and positive, got {self.size}")

    @override
    def __call__(self, objective: Objective) -> Objective:
        # The blur is symmetric, so it is its own transpose.
        blurred = bpda(identity, self.blur)
        return lambda key, x: objective(key, blurred(x))

    def blur(self, x: jax.Array) -> jax.Array:
        """(H, W, C) -> (H, W, C), along one axis and then along the other."""
        radius = self.size // 2
        weights = np.exp(-(np.linspace(-3, 3, self.size) ** 2) / 2) if radius else np.ones(1)
        weights = (weights / weights.sum()).astype(np.float32)
        for axis in (0, 1):
            pad = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
            wide = jnp.pad(x, pad)
            shifts = [
                w * jax.lax.slice_in_dim(wide, i, i + x.shape[axis], axis=axis)
                for i, w in enumerate(weights)
            ]
            x = ordered_sum(jnp.stack(shifts))
        return x


@config
class ScaleInvariant(Transform):
    """The mean of the objective over x / 2^i, i = 0 to copies - 1.

    Args:
      copies: the number of scaled images.

    References: Lin et al., "Nesterov accelerated gradient and scale invariance for adversarial
    attacks", 2020, Eq. 9.

    >>> brightness = rj.attacks.transforms.ScaleInvariant(copies=2)(lambda key, x: x.mean())
    >>> float(brightness(jax.random.key(0), jnp.ones((1, 2, 1))))  # of 1 and 1/2
    0.75
    """

    copies: int = number(default=5, low=1, static=True)

    @override
    def __call__(self, objective: Objective) -> Objective:
        scales = np.float32(0.5) ** np.arange(self.copies, dtype=np.float32)

        def mean(key, x):
            keys, scaled = jax.random.split(key, self.copies), scales.reshape(-1, 1, 1, 1) * x[None]
            return ordered_sum(jax.vmap(objective)(keys, scaled)) / self.copies

        return mean


def through(
    transforms: tuple[Transform, ...], logits_fn: LogitsFn, value: Callable[[Any], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    """x -> value(logits_fn(x)), seen through the transforms in the order of the tuple.

    It is `Randomized` if there are transforms or the model is; one key draws for all of them.
    """
    if not transforms and not isinstance(logits_fn, Randomized):
        return lambda x: value(logits_fn(x))

    def plain(key, x):
        return value(redraw(logits_fn, key)(x))

    objective: Objective = plain
    for transform in reversed(transforms):
        objective = transform(objective)
    return Randomized(objective, logits_fn.key if isinstance(logits_fn, Randomized) else None)


KINDS[Transform] = Names(
    "transform",
    {
        "diverse-input": DiverseInput(),
        "translation-invariant": TranslationInvariant(),
        "scale-invariant": ScaleInvariant(),
    },
)
