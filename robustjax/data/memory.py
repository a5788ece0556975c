"""A data set from arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robustjax.checks import checked, shown
from robustjax.data.dataset import Dataset


@checked(host=True)
def from_arrays(
    images: Any,
    labels: Any,
    *,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A data set from images and labels in memory, for `fit` and `evaluate`.

    Args:
      images: (N, H, W, C), or (N, H, W) in grey: uint8, or floats in [0, 1], which are rounded to
        8 bits, as in image files.
      labels: (N,) integers in [0, K), or names. Names are numbered as in `class_names`.
      class_names: the K names. None: of named labels those that occur, in order; of integers none,
        and every class from 0 to the largest label must occur.
      name: what config.json calls the set.

    Raises:
      ValueError: images are neither, or labels fit neither them nor the names.

    `Dataset.carved` takes a validation set from it:

    >>> pictures = np.random.default_rng(0).uniform(size=(20, 8, 8))
    >>> train, validation = rj.data.from_arrays(pictures, ["cat", "dog"] * 10).carved()
    >>> len(train), len(validation), train.class_names, train.images.dtype.name
    (18, 2, ('cat', 'dog'), 'uint8')
    """
    numbers, names = _numbered(np.asarray(labels), class_names)
    pixels = _pixels(np.asarray(images))
    classes = len(names) if names else int(numbers.max(initial=-1)) + 1
    return Dataset(pixels, numbers, np.arange(len(pixels)), name, "train", classes, names)


def _pixels(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C)."""
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise ValueError(
            f"images must be uint8, or floats in [0, 1]; got {images.dtype}: convert them with "
            "images.astype(np.uint8) if they hold 0 to 255"
        )
    low, high = (float(f(images)) for f in (np.min, np.max)) if images.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"images of floats must lie in [0, 1], got {low:g} to {high:g}: divide by 255, or undo "
            "the normalisation, which belongs inside the model"
        )
    return np.round(255 * images).astype(np.uint8)


def _numbered(
    labels: np.ndarray, class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels as integers, and the names of the classes."""
    if labels.ndim != 1 or labels.dtype.kind not in "iuUO":
        raise ValueError(
            f"labels must be N integers or names, got {shown(labels)}; of one-hot rows give "
            "labels.argmax(-1)"
        )
    names = None if class_names is None else tuple(class_names)
    if labels.dtype.kind in "iu":
        missing = np.setdiff1d(np.arange(labels.max(initial=0) + 1), labels)
        if names is None and missing.size:
            raise ValueError(
                f"there is no example of class {missing[0]}: number the classes from 0, or give "
                "class_names"
            )
        return labels, names
    names = tuple(map(str, np.unique(labels))) if names is None else names
    unknown = set(map(str, labels)) - set(names)
    if unknown:
        raise ValueError(f"labels hold {min(unknown)!r}, which is none of the class_names {names}")
    number = {name: k for k, name in enumerate(names)}
    return np.array([number[str(label)] for label in labels]), names
