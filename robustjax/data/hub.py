"""Image classification sets of Hugging Face `datasets`, from its hub or a folder."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from robustjax.data import pictures
from robustjax.data.cache import decoded
from robustjax.data.dataset import Dataset
from robustjax.data.resize import sized
from robustjax.lazy import needed
from robustjax.progress import bar

HUB = "hf:"
SPLITS = ("train", "validation", "test")
T = TypeVar("T")


class Hub:
    """A set of labelled images that the package `datasets` reads, decoded once and cached.

    Args:
      name: 'hf:NAME', with the set's name on the Hugging Face hub or a folder that `save_to_disk`
        wrote; with ':size=64' after it the central square of each image whose short side is resized
        to 64 pixels.

    Raises:
      ModuleNotFoundError: `datasets` is not installed.
      ValueError: it has no column of images, no column of class labels, or several of them.
    """

    def __init__(self, name: str):
        self.name = name
        where, self.size = sized(name)
        where = where.removeprefix(HUB)
        self.title = re.sub(r"[^\w.-]+", "-", where)[-40:]
        if where in ("", "hf"):
            raise ValueError(f"write the set after the colon, hf:NAME, not {name!r}")
        self.parts = _loaded(where)
        first = next(iter(self.parts.values()))
        self.image = _column(name, first, "Image", "cast_column(COLUMN, Image())")
        self.label = _column(name, first, "ClassLabel", "class_encode_column(COLUMN)")

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the set's own splits."""
        return tuple(split for split in SPLITS if split in self.parts)

    def read(self, split: str) -> Dataset:
        """One of the set's own splits, from the cache if it has been decoded before."""
        part = self.parts[split]
        feature = part.features[self.label]
        about = f"{self.title}-{self.size or 'as-is'}-{split}"
        cached = f"hf-{about}-{part._fingerprint}"  # which changes with the files and the version

        def make() -> Iterator[tuple[np.ndarray, int]]:
            labels = bar(f"decode {self.name} {split}", part[self.label], leave=False)
            decode = functools.partial(pictures.pixels, channels=shape()[-1], size=self.size)
            yield from zip(self._each(part, decode), labels, strict=True)

        @functools.cache
        def shape() -> tuple[int, ...]:
            return self._shape(part)

        return Dataset(
            **decoded(cached, shape, make),
            indices=np.arange(len(part)),
            name=self.name,
            split=split,
            num_classes=feature.num_classes,
            class_names=tuple(feature.names),
        )

    def _each(self, part: Any, read: Callable[[bytes], T]) -> Iterator[T]:
        """Something of each image file of a split."""
        files = part.cast_column(self.image, type(part.features[self.image])(decode=False))
        for row, example in enumerate(files):
            file = example[self.image]
            try:
                yield read(file["bytes"] or Path(file["path"]).read_bytes())
            except (ValueError, OSError) as error:
                raise ValueError(f"image {row} of {self.name}: {error}") from error

    def _shape(self, part: Any) -> tuple[int, ...]:
        """(N, H, W, C) of a split as it is read, from the headers of all its files."""
        found = list(self._each(part, pictures.shape))
        channels = max(shape[-1] for shape in found)
        if self.size is not None:
            return len(part), self.size, self.size, channels
        if len({shape[:2] for shape in found}) > 1:
            raise ValueError(
                f"the images of {self.name} vary in size: after its name, :size=64 resizes the "
                "short side to 64 pixels and takes the central square"
            )
        return len(part), *found[0][:2], channels


def _loaded(where: str) -> Any:
    """A set's splits by name, from a folder or the hub."""
    datasets = needed("datasets", HUB)
    folder = Path(where).expanduser()
    try:
        found = datasets.load_from_disk(str(folder)) if folder.is_dir() else None
        found = datasets.load_dataset(where) if found is None else found
    except Exception as error:  # its own errors, and those of the network
        reason = " ".join(str(error).split())
        raise ValueError(f"{HUB}{where} cannot be loaded: {reason}") from error
    if not isinstance(found, datasets.DatasetDict):
        found = datasets.DatasetDict(train=found)
    if not set(found) & set(SPLITS):
        raise ValueError(
            f"{HUB}{where} has the splits {', '.join(found)}; name them train, validation or test"
        )
    return found


def _column(name: str, part: Any, kind: str, cure: str) -> str:
    """The one column of a kind of feature."""
    found = [c for c, feature in part.features.items() if type(feature).__name__ == kind]
    if len(found) != 1:
        raise ValueError(
            f"{name} is not an image classification set: {len(found)} of its columns "
            f"({', '.join(part.features)}) are {kind}; see datasets' {cure} and remove_columns, "
            "then save_to_disk(DIR) and use hf:DIR"
        )
    return found[0]
