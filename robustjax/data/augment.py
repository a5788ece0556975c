"""Pixels on the device: uint8 to [0, 1], and the crop and flip of one example."""

from __future__ import annotations

from typing import Literal

import chex
import jax
import jax.numpy as jnp
from jax import lax

from robustjax.config import config, static

PADS = {"reflect": "reflect", "zero": "constant"}


def to_float(images: jax.Array) -> jax.Array:
    """uint8 of any shape -> float32 in [0, 1]."""
    return jnp.asarray(images, jnp.float32) / 255


def augment(
    key: jax.Array,
    image: jax.Array,
    pad: int = 4,
    mode: Literal["reflect", "zero"] = "reflect",
    flip: bool = True,
) -> jax.Array:
    """Pad, crop back at a random place, and mirror left to right half of the time.

    Args:
      key: a PRNG key.
      image: (H, W, C), one example; `jax.vmap` makes the batch.
      pad: rows and columns added on every side; 0 does not crop.
      mode: what the padding holds: the image reflected at its border, or zeros.
      flip: whether to mirror.

    Returns:
      An image of the same shape and dtype.

    Raises:
      AssertionError: the image has not three axes; a batch needs `jax.vmap`.
      ValueError: a negative pad, an unknown mode, or more reflected rows than the image has.

    References:
      He et al. (2016), section 4.2: pad 4, random crop, horizontal flip on CIFAR-10.
    """
    chex.assert_rank(image, 3)
    if mode not in PADS:
        raise ValueError(f"there is no padding mode {mode!r}; choose reflect or zero")
    if pad < 0 or (mode == "reflect" and pad >= min(image.shape[:2])):
        raise ValueError(f"cannot pad an image of shape {image.shape} by {pad} with mode {mode!r}")
    crop_key, flip_key = jax.random.split(key)
    if pad:
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=PADS[mode])
        top, left = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
        image = lax.dynamic_slice(padded, (top, left, 0), image.shape)
    if flip:
        image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
    return image


@config
class Augment:
    """`augment` with its arguments: what a training step applies to each example."""

    pad: int = static(4)
    mode: Literal["reflect", "zero"] = static("reflect")
    flip: bool = static(True)

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """One example (H, W, C) -> one of the same shape."""
        return augment(key, image, self.pad, self.mode, self.flip)


def default_augment(name: str, image_shape: tuple[int, int, int]) -> Augment:
    """What the field trains this data set with.

    Grey images (digits, MNIST) get none; colour images are cropped after padding by 4 and mirrored,
    except house numbers, which are only cropped.
    """
    if image_shape[-1] == 1:
        return Augment(pad=0, flip=False)
    return Augment(flip=not name.startswith("svhn"))
