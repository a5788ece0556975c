"""One split of a data set: uint8 images with labels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from robustjax.checks import check_fields, check_layout, check_number, checked, shown
from robustjax.data.carving import carve
from robustjax.data.rows import Rows, select

CHUNK = 1024
"""Examples that are read at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A decoded split of an image classification set.

    Args:
      images: (N, H, W, C) uint8; memory-mapped if the source is a file. Rows selected from a file
        are `Rows` if they are too large for memory, which are read when they are indexed.
      labels: (N,) int32 in [0, num_classes).
      indices: (N,) int32, the examples' rows in the source, before any split or augmentation: an
        example always keeps its index.
      name: the name passed to `load`.
      split: one of `SPLITS`.
      num_classes: K.
      class_names: K names, or None if the source has none.
      targets: (N, K) floats, soft labels in addition to the labels, memory-mapped if the source is;
        or None.

    Raises:
      ValueError: a shape, a dtype or a label differs from the above.

    >>> images, labels = np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 1, 0])
    >>> blank = rj.data.Dataset(images, labels, np.arange(4), "blank", "train", num_classes=2)
    >>> len(blank), blank.image_shape, blank.take(labels == 1).indices.tolist()
    (4, (8, 8, 1), [1, 2])
    """

    images: np.ndarray | Rows
    labels: np.ndarray
    indices: np.ndarray
    name: str
    split: str
    num_classes: int
    class_names: tuple[str, ...] | None = None
    targets: np.ndarray | None = None

    def __post_init__(self):
        check_fields(self)
        known = ("images", "labels", "indices", "targets")
        for field in known[: 3 if self.targets is None else 4]:
            kinds = (np.ndarray, Rows) if field == "images" else np.ndarray
            if not isinstance(array := getattr(self, field), kinds):
                raise TypeError(f"{field} must be an array of NumPy, got {shown(array)}")
        images, labels, what = self.images, self.labels, f"{self.name} ({self.split})"
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                f"{what}: images must be uint8 of shape (N, H, W, C), "
                f"got {images.dtype} of shape {images.shape}"
            )
        check_layout(f"{what}: images", images.shape)
        for field in ("labels", "indices"):
            array = getattr(self, field)
            if array.dtype.kind not in "iu" or array.shape != images.shape[:1]:
                raise ValueError(
                    f"{what}: {field} must be {len(images)} integers, one for each image, "
                    f"got {array.dtype} of shape {array.shape}"
                )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            raise ValueError(
                f"{what}: labels must lie in [0, {self.num_classes}), got {low} to {high}"
                + (" (this split comes without labels)" if low == high == -1 else "")
            )
        low, high = int(self.indices.min()), int(self.indices.max())
        if low < 0 or high >= 2**31:
            raise ValueError(
                f"{what}: indices must be rows of the source, in [0, 2^31), got {low} to {high}"
            )
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"{what}: {len(self.class_names)} class names for {self.num_classes} classes"
            )
        wanted = (len(labels), self.num_classes)
        if self.targets is not None and (
            self.targets.shape != wanted or self.targets.dtype.kind != "f"
        ):
            raise ValueError(
                f"{what}: targets must be floats of shape {wanted}, "
                f"got {self.targets.dtype} of shape {self.targets.shape}"
            )
        object.__setattr__(self, "labels", np.asarray(labels, np.int32))
        object.__setattr__(self, "indices", np.asarray(self.indices, np.int32))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def digest(self) -> str:
        """The SHA-256 of all examples, as 64 hex digits; a set on disk is read for it."""
        found = hashlib.sha256()
        targets = [] if self.targets is None else [self.targets]
        for array in (self.images, self.labels, self.indices, *targets):
            found.update(f"{array.dtype.str}{array.shape}".encode())
            for start in range(0, len(array), CHUNK):
                found.update(array[start : start + CHUNK].tobytes())
        return found.hexdigest()

    @checked(host=True)
    def take(self, rows: np.ndarray | slice) -> Dataset:
        """The examples at these rows, with their labels, indices and targets.

        Images on disk stay there if they take more than a quarter of the memory.
        """
        return dataclasses.replace(
            self,
            images=select(self.images, rows),
            labels=self.labels[rows],
            indices=self.indices[rows],
            targets=None if self.targets is None else self.targets[rows],
        )

    def carved(self) -> tuple[Dataset, Dataset]:
        """(train, validation): a tenth, at most 1,000 examples, every class in its share.

        The same examples on every machine, as `load` carves a validation split out of train.

        Raises:
          ValueError: there are fewer than ten examples.
        """
        rows = carve(self.labels, test=False)
        if not rows["validation"].size:
            raise ValueError(f"{self.name}: {len(self)} examples are too few to carve a tenth out")
        train, validation = self.take(rows["train"]), self.take(rows["validation"])
        return train, dataclasses.replace(validation, split="validation")

    def head(self, n: int) -> Dataset:
        """The first n examples, or all if there are fewer.

        Raises:
          ValueError: n < 1.
        """
        check_number("n", n, 1)
        return self.take(slice(n))

    @checked
    def only(self, classes: Sequence[str]) -> Dataset:
        """The examples of some classes, which are numbered in the order given; without targets.

        Args:
          classes: their names, or their numbers as text.

        Raises:
          ValueError: there is no such class, one is given twice, or this split has no example.

        >>> rj.data.load("digits").only(["7", "1"]).class_names
        ('7', '1')
        """
        names = self.class_names or tuple(map(str, range(self.num_classes)))
        numbers = {str(number): number for number in range(len(names))}
        numbers |= {name: number for number, name in enumerate(names)}
        if missing := [name for name in classes if name not in numbers]:
            raise ValueError(f"{self.name} has no class {missing[0]!r}; it has {', '.join(names)}")
        chosen = [numbers[name] for name in classes]
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"a class is given twice in {','.join(classes)}")
        rows = np.isin(self.labels, chosen)
        if not rows.any():
            raise ValueError(f"{self.name} ({self.split}) has no example of {','.join(classes)}")
        new = np.zeros(len(names), np.int32)
        new[chosen] = np.arange(len(chosen))
        return dataclasses.replace(
            self,
            images=select(self.images, rows),
            labels=new[self.labels[rows]],
            indices=self.indices[rows],
            num_classes=len(chosen),
            class_names=tuple(names[number] for number in chosen),
            targets=None,
        )

    @checked
    def with_classes(self, names: Sequence[str]) -> Dataset:
        """The same examples, their classes numbered as in `names`.

        Args:
          names: K different names, this set's among them.

        Raises:
          ValueError: this set has no class names, or others.

        >>> images, labels = np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, 1])
        >>> pets = rj.data.Dataset(images, labels, np.arange(3), "pets", "test", 2, ("cat", "dog"))
        >>> pets.with_classes(["ant", "cat", "dog"]).labels.tolist()
        [1, 2, 2]
        """
        own = self.class_names or ()
        if not own or not set(own) <= set(names):
            raise ValueError(f"{self.name}: the classes {', '.join(own)} are not all among {names}")
        labels = np.array([list(names).index(name) for name in own])[self.labels]
        return dataclasses.replace(
            self, labels=labels, num_classes=len(names), class_names=tuple(names), targets=None
        )

    def levels(self) -> np.ndarray:
        """How often each pixel value from 0 to 255 occurs in each channel: (C, 256) integers."""
        counts = np.zeros((self.image_shape[-1], 256), int)
        for start in range(0, len(self), CHUNK):
            pixels = np.moveaxis(self.images[start : start + CHUNK], -1, 0)
            counts += [np.bincount(channel.ravel(), minlength=256) for channel in pixels]
        return counts

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation (C,) of the channels, as pixels in [0, 1], to 4 decimals."""
        counts, levels = self.levels(), np.arange(256) / 255
        share = counts / counts.sum(-1, keepdims=True)
        means = share @ levels
        deviations = np.sqrt((share * (levels - means[:, None]) ** 2).sum(-1))
        return tuple(means.round(4).tolist()), tuple(deviations.round(4).tolist())
