"""What a gradient is taken through, so that the attack transfers to models it has not seen.

A transform maps an objective, (key, image) -> scalar, to another one. A tuple of them lists what
the image passes on its way to the model: `(ScaleInvariant(), DiverseInput())` resizes each copy.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks._core.bpda import bpda, identity
from robustjax.attacks._core.randomized import Randomized, redraw
from robustjax.config import config, number, static
from robustjax.deterministic import ordered_sum
from robustjax.spec import KINDS, Names
from robustjax.typing import LogitsFn

Objective = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, image (H, W, C)) -> scalar."""


class Transform(abc.ABC):
    """An objective seen through a change of the image or of the gradient."""

    copies: int = 1
    """How often the objective is called."""

    @abc.abstractmethod
    def __call__(self, objective: Objective) -> Objective:
        """The transformed objective."""


@config
class DiverseInput(Transform):
    """With probability `p` the image is shrunk and put at a random place on black.

    The height is uniform on {floor(low H), ..., H - 1} and the width in proportion; bilinear, every
    place equally likely. The original enlarges, for models that take any size; shrinking instead,
    by the same ratio, is what later work does. The original never uses the last row and column of
    places, we do.

    Args:
      p: probability; 0 leaves the image as it is.
      low: the smallest height, as a fraction of H.

    References: Xie et al., "Improving transferability of adversarial examples with input
    diversity", 2019.
    """

    p: float = number(default=0.5, high=1.0)
    low: float = number(default=0.9, high=1.0)

    def __call__(self, objective: Objective) -> Objective:
        """The objective at the changed image."""

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
    Each channel is padded with zeros. The value of the objective stays.

    Args:
      size: of the kernel, odd; the paper takes 15 for images of 299 pixels, and 7 is usual for
        smaller ones.

    References: Dong et al., "Evading defenses to transferable adversarial examples by
    translation-invariant attacks", 2019, Eq. 7.
    """

    size: int = static(default=15)

    def __post_init__(self):
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"the kernel's size must be odd and positive, got {self.size}")

    def __call__(self, objective: Objective) -> Objective:
        """The objective with the blurred gradient."""
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
    """The mean of the objective over x / 2^i, i = 0 to n - 1.

    Args:
      copies: their number n.

    References: Lin et al., "Nesterov accelerated gradient and scale invariance for adversarial
    attacks", 2020, Eq. 9.
    """

    copies: int = number(default=5, low=1, static=True)

    def __call__(self, objective: Objective) -> Objective:
        """The mean over the copies."""
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
