"""Pictures of any size as squares of one size, on the host, before they are cached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robustjax.lazy import Lazy

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = Lazy("PIL.Image")


LARGEST = 1024
"""The largest side."""


def sized(name: str) -> tuple[str, int | None]:
    """A data set's name, and the side of its images if the name gives one.

    >>> sized("food101:size=64"), sized("cifar10")
    (('food101', 64), ('cifar10', None))
    """
    name, given, text = name.partition(":size=")
    if not given:
        return name, None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= LARGEST:
        raise ValueError(
            f"the size of {name} must be a whole number in [1, {LARGEST}], not {text!r}"
        )
    return name, int(text)


def square(image: np.ndarray, size: int, channels: int) -> np.ndarray:
    """The central square of an image whose short side is resized to `size`.

    As usual on ImageNet: bilinear, averaged over the pixels that fall together. Grey images become
    colour ones where `channels` is 3.

    Args:
      image: (H, W) or (H, W, C) uint8.
      size: the side of the square, in pixels.
      channels: 1 or 3.

    Returns:
      (size, size, channels) uint8.

    Raises:
      ValueError: the image has another number of channels.

    >>> square(np.full((20, 30), 7, np.uint8), size=4, channels=3)[0, 0]
    array([7, 7, 7], dtype=uint8)
    """
    image = image[..., None] if image.ndim == 2 else image
    if image.shape[-1] not in (1, channels):
        raise ValueError(f"it has {image.shape[-1]} channels, not {channels}")
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    short = min(picture.size)
    width, height = (size * side // short for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    found = np.asarray(picture.crop((left, top, left + size, top + size)))
    return np.broadcast_to(found.reshape(size, size, -1), (size, size, channels))
