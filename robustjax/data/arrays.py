"""Sources without download or decoding: scikit-learn's digits, and your own arrays."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robustjax.archives import map_array
from robustjax.data.dataset import Dataset
from robustjax.lazy import Lazy

if TYPE_CHECKING:
    from sklearn import datasets
else:
    datasets = Lazy("sklearn.datasets")

ARRAYS = "arrays:"


class Digits:
    """The 1,797 handwritten digits bundled with scikit-learn: 8x8, grey, ten classes, one split.

    References:
      Alpaydin and Kaynak (1998), UCI optical recognition of handwritten digits, its test set.
    """

    name = "digits"
    splits = ("train",)

    def read(self, split: str) -> Dataset:
        """All digits, their 17 grey levels rescaled from 0..16 to 0..255."""
        levels, labels = datasets.load_digits(return_X_y=True)
        return Dataset(
            images=np.round(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1),
            labels=labels,
            indices=np.arange(len(labels)),
            name=self.name,
            split=split,
            num_classes=10,
            class_names=tuple("0123456789"),
        )


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A folder of DIR/{train,test}_{images,labels}.npy and optionally a validation pair.

    A folder without train's pair is a set to test models of another one on. Images are uint8
    (N, H, W, C), labels integers; train's largest label, or else test's, determines the number of
    classes. Images are memory-mapped, but carving a validation split out of train reads all of it:
    a set larger than memory needs a validation pair.
    """

    name: str

    @property
    def folder(self) -> Path:
        """The path after `arrays:`."""
        return Path(self.name.removeprefix(ARRAYS)).expanduser()

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the folder has files of; test is required."""
        names = ("train", "validation", "test")
        found = tuple(s for s in names if any(self.folder.glob(f"{s}_*.npy")))
        if "test" not in found:
            raise FileNotFoundError(self._missing("test_images.npy"))
        return found

    def read(self, split: str) -> Dataset:
        """One split, its images memory-mapped."""
        images, labels = self._array(split, "images"), self._array(split, "labels")
        trained = "train" in self.splits
        numbered = self._array("train", "labels") if trained else labels
        file = f"{'train' if trained else split}_labels.npy"
        if numbered.dtype.kind not in "iu" or not numbered.size:
            raise ValueError(f"{self.name}: {file} must hold integers")
        if trained and numbered.max() >= len(numbered):
            raise ValueError(
                f"{self.name}: {file} has {len(numbered)} labels up to "
                f"{numbered.max()}; number the classes from 0, with examples of each"
            )
        like = self._array("train", "images") if trained else images
        if images.shape[1:] != like.shape[1:]:
            raise ValueError(
                f"{self.name}: {split}_images.npy has images of shape {images.shape[1:]}, "
                f"train_images.npy of {like.shape[1:]}; resize one of them"
            )
        return Dataset(
            images=images,
            labels=labels,
            indices=np.arange(len(images)),
            name=self.name,
            split=split,
            num_classes=int(numbered.max()) + 1,
        )

    def _array(self, split: str, kind: str) -> np.ndarray:
        path = self.folder / f"{split}_{kind}.npy"
        if not path.is_file():
            raise FileNotFoundError(self._missing(path.name))
        array = map_array(path)
        return array if kind == "images" else np.array(array)

    def _missing(self, file: str) -> str:
        return (
            f"{self.name} needs {file}: the folder must hold train_images.npy, train_labels.npy, "
            "test_images.npy and test_labels.npy (images uint8 NHWC, labels integers)"
        )
