"""PNG and JPEG files -> uint8 arrays, without loss or with an error that names the file."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from robustjax.data.resize import square
from robustjax.lazy import Lazy

if TYPE_CHECKING:
    import PIL
    from PIL import Image
else:
    PIL = Lazy("PIL")
    Image = Lazy("PIL.Image")

SUFFIXES = (".png", ".jpg", ".jpeg")
GREY, COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA", "CMYK")
"""What Pillow calls images of one channel and of three, with or without transparency."""


File = str | os.PathLike[str] | bytes
"""Where an image file is, or all of its bytes."""


def shape(path: File) -> tuple[int, int, int]:
    """(H, W, C) as the file's header says; C is 1 for a grey image, else 3.

    Raises:
      ValueError: the file is damaged, not a PNG or JPEG, or has 16 bits a channel.
    """
    with _opened(path) as image:
        return image.height, image.width, 1 if image.mode in GREY else 3


def pixels(path: File, channels: int, size: int | None = None) -> np.ndarray:
    """An image file as uint8 (H, W, channels).

    Palettes are looked up, CMYK is converted, grey is repeated where three channels are wanted, and
    an opaque alpha channel is dropped. Orientation in EXIF data is ignored, as usual in the field.

    Args:
      path: a PNG or JPEG file, whatever its name ends in.
      channels: 1 for a grey image, or 3.
      size: the side of the central square, as `square` takes it; None: the image as it is.

    Raises:
      ValueError: as `shape`, or the image has transparent pixels.
    """
    with _opened(path) as image:
        has_alpha = "A" in image.getbands() or "transparency" in image.info
        if has_alpha and np.min(image.convert("RGBA").getchannel("A")) < 255:
            raise ValueError("it has transparent pixels; flatten it onto a background")
        found = np.asarray(image.convert("L" if image.mode in GREY else "RGB"))
        if size is not None:
            return square(found, size, channels)
        return np.broadcast_to(found.reshape(*found.shape[:2], -1), (*found.shape[:2], channels))


@contextlib.contextmanager
def _opened(path: File) -> Iterator[Any]:
    """An image file, read by Pillow as far as its header; every error names it."""
    name = "it" if isinstance(path, bytes) else path
    try:
        with io.BytesIO(path) if isinstance(path, bytes) else open(path, "rb") as file:
            start = file.read(25)
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                if start[:4] == b"\x89PNG" and start[24] == 16:
                    raise ValueError("it has 16 bits a channel; save it with 8")
                if image.mode not in GREY + COLOUR:
                    raise ValueError(f"its mode is {image.mode}; save it as RGB or grey")
                yield image
    except PIL.UnidentifiedImageError as error:
        raise ValueError(
            f"{name} is neither a PNG nor a JPEG file; convert or delete it"
        ) from error
    except Exception as error:  # Pillow raises errors of many kinds on damaged files
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{name} cannot be read: {reason}") from error
