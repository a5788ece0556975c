"""Pixels on the device: uint8 to [0, 1]; crop, shift, flip and cutout of one example."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike

from robustjax.checks import INF, checked, shown
from robustjax.config import config, number, static
from robustjax.names import Names

PADS = {"reflect": "reflect", "zero": "constant"}


def _check_bytes(name: str, value: Any) -> None:
    if np.dtype(getattr(value, "dtype", float)) != np.uint8:
        raise TypeError(f"{name} must be uint8 of [0, 255], got {shown(value)}")


@checked(images=_check_bytes)
def to_float(images: ArrayLike) -> jax.Array:
    """uint8 of any shape -> float32 in [0, 1].

    >>> rj.data.to_float(np.uint8([0, 255]))
    Array([0., 1.], dtype=float32)
    """
    return jnp.asarray(images, jnp.float32) / 255


@checked(image="H W C", pad=(0, INF), shift=(0, 1), cutout=(0, INF))
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
      ValueError: an image that does not have three axes (`jax.vmap` makes a batch), a negative pad,
        an unknown mode, more reflected rows than the image has, a shift outside [0, 1], a shift
        together with a pad, or a cutout larger than the image.

    References:
      He et al. (2016), section 4.2: pad 4, random crop, horizontal flip on CIFAR-10.
      Pang et al. (2020) shift by up to 1/10 and flip, as Keras's ImageDataGenerator does.
      DeVries and Taylor (2017): cutout.

    >>> keys, images = jax.random.split(jax.random.key(0), 5), jnp.ones((5, 8, 8, 3))
    >>> jax.jit(jax.vmap(rj.data.augment))(keys, images).shape
    (5, 8, 8, 3)
    """
    if mode == "reflect" and pad >= min(image.shape[:2]):
        raise ValueError(
            f"cannot pad an image of shape {image.shape} by {pad} with mode {mode!r}: "
            "choose a smaller pad, such as the recipe's augment=Augment(pad=0)"
        )
    if shift and pad:
        raise ValueError(f"a shift needs pad 0, got shift {shift} and pad {pad}")
    if cutout > max(image.shape[:2]):
        raise ValueError(
            f"cutout is the side of a square in pixels, and {cutout} is larger than the image, of "
            f"shape {image.shape}"
        )
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

    pad: int = number(default=4, static=True)
    mode: Literal["reflect", "zero"] = static(default="reflect")
    flip: bool = static(default=True)
    shift: float = number(default=0.0, high=1, static=True)
    cutout: int = number(default=0, static=True)

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


@checked
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
