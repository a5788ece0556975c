"""Pixels on the device: uint8 to [0, 1]; crop, shift, flip and cutout of one example."""

from __future__ import annotations

import dataclasses
from typing import Literal

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike

from robustjax.config import config, static
from robustjax.spec import Names

PADS = {"reflect": "reflect", "zero": "constant"}


def to_float(images: ArrayLike) -> jax.Array:
    """uint8 of any shape -> float32 in [0, 1].

    >>> rj.data.to_float(np.uint8([0, 255]))
    Array([0., 1.], dtype=float32)
    """
    return jnp.asarray(images, jnp.float32) / 255


def augment(
    key: jax.Array,
    image: jax.Array,
    pad: int = 4,
    mode: Literal["reflect", "zero"] = "reflect",
    flip: bool = True,
    shift: float = 0.0,
    cutout: int = 0,
) -> jax.Array:
    """Move the image at random, mirror it left to right half of the time, and cut a hole.

    Pad-and-crop moves it by whole pixels. A shift moves it by any fraction of a pixel, with linear
    interpolation and repeated borders.

    Args:
      key: a PRNG key.
      image: (H, W, C), one example; `jax.vmap` makes the batch.
      pad: rows and columns added on every side before the crop; 0 does not crop.
      mode: the padding, either the image reflected at its border or zeros.
      flip: whether to mirror.
      shift: the largest shift, as a fraction of the height and of the width; needs pad 0.
      cutout: side of a square of zeros around a random pixel, clipped at the border.

    Returns:
      An image of the same shape and dtype.

    Raises:
      AssertionError: the image does not have three axes; use `jax.vmap` for a batch.
      ValueError: a negative pad or cutout, an unknown mode, more reflected rows than the image
        has, a shift outside [0, 1], or a shift together with a pad.

    References:
      He et al. (2016), section 4.2: pad 4, random crop, horizontal flip on CIFAR-10.
      Pang et al. (2020) shift by up to 1/10 and flip, as Keras's ImageDataGenerator does.
      DeVries and Taylor (2017): cutout.

    >>> keys, images = jax.random.split(jax.random.key(0), 5), jnp.ones((5, 8, 8, 3))
    >>> jax.jit(jax.vmap(rj.data.augment))(keys, images).shape
    (5, 8, 8, 3)
    """
    chex.assert_rank(image, 3)
    if mode not in PADS:
        raise ValueError(f"unknown padding mode {mode!r}; choose reflect or zero")
    if pad < 0 or (mode == "reflect" and pad >= min(image.shape[:2])):
        raise ValueError(f"cannot pad an image of shape {image.shape} by {pad} with mode {mode!r}")
    if not 0 <= shift <= 1 or (shift and pad):
        raise ValueError(f"shift must lie in [0, 1], with pad 0, got shift {shift} and pad {pad}")
    if cutout < 0:
        raise ValueError(f"cutout must be the side of a square in pixels, got {cutout}")
    keys = jax.random.split(key, 3 if cutout else 2)
    crop_key, flip_key = keys[:2]
    if pad:
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=PADS[mode])
        top, left = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
        image = lax.dynamic_slice(padded, (top, left, 0), image.shape)
    if shift:
        image = _shifted(image, jax.random.uniform(crop_key, (2,), minval=-shift, maxval=shift))
    if flip:
        image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
    return _with_hole(keys[2], image, cutout) if cutout else image


def _with_hole(key: jax.Array, image: jax.Array, side: int) -> jax.Array:
    """The image with a square of zeros that starts side // 2 before a random pixel."""
    center = jax.random.randint(key, (2,), 0, jnp.array(image.shape[:2]))
    inside = [
        (jnp.arange(n) >= c - side // 2) & (jnp.arange(n) < c - side // 2 + side)
        for n, c in zip(image.shape[:2], center, strict=True)
    ]
    hole = inside[0][:, None] & inside[1][None]
    return jnp.where(hole[..., None], 0.0, image)


def _shifted(image: jax.Array, by: jax.Array) -> jax.Array:
    """The image moved down and right by these fractions of its height and width."""
    size = image.shape[:2]
    positions = [jnp.arange(n) - n * by[axis] for axis, n in enumerate(size)]
    grid = jnp.meshgrid(*positions, indexing="ij")

    def channel(pixels):
        return map_coordinates(pixels, grid, order=1, mode="nearest")

    return jax.vmap(channel, -1, -1)(image)


@config
class Augment:
    """`augment` with fixed arguments, applied to each example by a training step.

    >>> mirror = rj.data.Augment(pad=0, flip=True)
    >>> image = jnp.arange(2.0).reshape(1, 2, 1)
    >>> sorted(mirror(jax.random.key(0), image).ravel().tolist())
    [0.0, 1.0]
    """

    pad: int = static(default=4)
    mode: Literal["reflect", "zero"] = static(default="reflect")
    flip: bool = static(default=True)
    shift: float = static(default=0.0)
    cutout: int = static(default=0)

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """One example (H, W, C) -> one of the same shape."""
        return augment(key, image, self.pad, self.mode, self.flip, self.shift, self.cutout)


CROP_FLIP = Augment()
AUGMENTATIONS = Names(
    "augmentation",
    {
        "none": Augment(pad=0, flip=False),
        "crop": Augment(flip=False),
        "crop-flip": CROP_FLIP,
        "zero-crop": Augment(mode="zero", flip=False),
        "zero-crop-flip": Augment(mode="zero"),
        "shift": Augment(pad=0, shift=0.1, flip=False),
        "shift-flip": Augment(pad=0, shift=0.1),
    },
)
"""By the names of `train --augment`."""


def default_augment(
    name: str, image_shape: tuple[int, int, int], usual: Augment = CROP_FLIP
) -> Augment:
    """The augmentation for a data set: `usual` for colour images, none for grey ones.

    House numbers (svhn) are not mirrored. By default colour images are padded by 4, cropped and
    mirrored.

    >>> rj.data.default_augment("svhn_cropped", (32, 32, 3)).flip
    False
    >>> rj.data.default_augment("mnist", (28, 28, 1)) == rj.data.Augment(pad=0, flip=False)
    True
    """
    if image_shape[-1] == 1:
        return Augment(pad=0, flip=False)
    return dataclasses.replace(usual, flip=usual.flip and not name.startswith("svhn"))
