"""A name and a split -> a data set; validation and test splits are carved where there are none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from robustjax.checks import checked
from robustjax.data.arrays import Arrays, Digits
from robustjax.data.carving import carve
from robustjax.data.dataset import Dataset
from robustjax.data.folders import Folder
from robustjax.data.hub import Hub
from robustjax.data.rows import join
from robustjax.data.selection import chosen, rows
from robustjax.data.tfds import TFDS, prepared
from robustjax.names import Names

SPLITS = ("train", "validation", "test", "train+validation")


class Source(Protocol):
    """Where a data set comes from."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its own splits."""
        ...

    def read(self, split: str) -> Dataset:
        """One of its own splits, indices 0 .. N-1."""
        ...


@dataclasses.dataclass(frozen=True)
class Registered:
    """A source that a user's function reads: see `register`."""

    name: str
    function: Callable[[str, str], Dataset]
    splits: tuple[str, ...]

    def read(self, split: str) -> Dataset:
        """What the function returns, under the name that it was asked for."""
        found = self.function(self.name, split)
        if not isinstance(found, Dataset):
            raise TypeError(
                f"{self.name} was registered as a function that returns a Dataset, and "
                f"returned a {type(found).__name__}"
            )
        return dataclasses.replace(found, name=self.name, split=split)


def _digits(name: str) -> Source:
    if name != "digits":
        raise ValueError(f"the data set digits has no settings: write 'digits', not {name!r}")
    return Digits()


SOURCES: Names[Callable[[str], Source]] = Names(
    "data set", {"digits": _digits, "folder": Folder, "arrays": Arrays, "hf": Hub}
)
"""What stands before the colon of a name -> how its source is made."""


@checked
def register(
    name: str,
    read: Callable[[str, str], Dataset],
    *,
    splits: tuple[str, ...] = ("train", "test"),
) -> None:
    """Make a data set of your own known by name, to `load` and the command line.

    Args:
      name: e.g. 'my-digits'; all of 'my-digits:ANYTHING' is this data set's, too.
      read: (the name in full, one of `splits`) -> that split. The first line of its docstring is
        what `robustjax data list` says.
      splits: those that it has: 'train', and perhaps 'test' and 'validation'. The others are carved
        out of train, as `load` says.

    Raises:
      ValueError: the name is robustjax's own or another module's.

    >>> def halves(name, split):
    ...     "Black and white, two images each."
    ...     images = np.repeat(np.uint8([0, 255]), 2).reshape(4, 1, 1, 1) + np.zeros((2, 2, 1))
    ...     return Dataset(np.uint8(images), np.arange(4) // 2, np.arange(4), name, split, 2)
    >>> register("halves", halves)
    >>> len(load("halves:any", "test"))
    4
    """
    SOURCES.register(name, lambda whole: Registered(whole, read, splits))
    _LINES[name] = (read.__doc__ or f"registered by {read.__module__}").strip().splitlines()[0]


_LINES: dict[str, str] = {}
"""What `available` says of registered sets."""


@checked
def load(name: str, split: str = "train", data_dir: str | None = None) -> Dataset:
    """Load one split of a data set.

    A set's own test and validation splits are used as they are. A validation split is otherwise
    carved out of train: a tenth of it, at most 1,000 examples, stratified by class (the size of
    Rice et al., 2020), and 'train' is what is left. A set with a validation split but no
    test split is tested on it, as is usual on ImageNet; one with neither gives a stratified fifth
    of train for testing. 'train+validation' is everything that is not for testing.

    Args:
      name: 'digits' (bundled, offline), 'folder:DIR' (image files in a folder for each class, or in
        a list), 'arrays:DIR', 'hf:NAME' (Hugging Face), a name that was registered, or the TFDS
        name of an image classification set; 'food101:size=64' and 'folder:DIR:size=64' are the
        images' central squares, the short side resized to 64 pixels, which images of varying size
        need. At the end, ':classes=cat,dog' or ':classes=3,5' keeps these classes, numbered in this
        order; ':train=0-999,2000' and ':test=rows.npy' keep these rows of the set's own split.
      split: one of `SPLITS`.
      data_dir: the folder that holds prepared TFDS sets; None is TFDS's own.

    Returns:
      The split; its indices are rows of the source's own split (own validation rows come after
      train's, so that no two examples to train on share an index).

    Raises:
      ValueError: an unknown name or split, or data that are not what they should be.
      FileNotFoundError: the data are not there; the message says which command or folder does it.

    Guarantees:
      The same call gives the same examples, on every machine.
      Train, validation and test share no example.

    >>> [len(rj.data.load("digits", split)) for split in ("train", "validation", "test")]
    [1295, 143, 359]
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
    whole, choice = chosen(name)
    found = _split(_source(whole, data_dir), whole, split, choice)
    if "classes" in choice:
        found = found.only(choice["classes"].split(","))
    return dataclasses.replace(found, name=name)


def _split(source: Source, name: str, split: str, choice: dict[str, str]) -> Dataset:
    """A split with the chosen rows, of all classes."""
    own = source.splits
    tested_on = next((s for s in ("test", "validation") if s in own), None)
    validated_on = "validation" if "validation" in own and tested_on == "test" else None
    if "test" in choice and tested_on is None:
        raise ValueError(f"{name} has no test split of its own, so :test= has no rows to choose")
    if split == "test" and tested_on:
        return dataclasses.replace(_rows(source.read(tested_on), choice, "test"), split="test")
    if "train" not in own:
        raise ValueError(
            f"{name} has no train split; it has {', '.join(own)}, so models of another set can be "
            "tested on it, but none trained"
        )
    train = source.read("train")
    size = len(train)
    train = _rows(train, choice, "train")
    if validated_on and split != "train":
        validation = source.read(validated_on)
        validation = dataclasses.replace(validation, indices=validation.indices + size)
        return validation if split == "validation" else _union(train, validation)
    if validated_on:
        return train
    carved = carve(train.labels, test=tested_on is None)[split]
    return dataclasses.replace(train.take(carved), split=split)


def _rows(examples: Dataset, choice: dict[str, str], key: str) -> Dataset:
    """The examples, or those of them that were chosen."""
    if key not in choice:
        return examples
    return examples.take(rows(choice[key], len(examples), examples.name))


@checked
def available(data_dir: str | None = None) -> dict[str, str]:
    """The data sets that `load` can read now: name -> a line about it, for `robustjax data list`.

    >>> rj.data.available("an/empty/folder")["digits"]
    '1,797 images of 8x8x1, 10 classes, bundled with scikit-learn'
    """
    return {
        "digits": "1,797 images of 8x8x1, 10 classes, bundled with scikit-learn",
        "folder:DIR": "DIR/CLASS/*.png or .jpg, DIR/{train,test}/CLASS/*, or DIR/labels.csv",
        "arrays:DIR": "DIR/{train,test}_{images,labels}.npy, images uint8 NHWC, labels integers",
        "hf:NAME": "an image set of the Hugging Face hub, or a folder of save_to_disk",
        **_LINES,
        **prepared(data_dir),
    }


def _source(name: str, data_dir: str | None) -> Source:
    make = SOURCES.get(name.partition(":")[0])
    return TFDS(name, data_dir) if make is None else make(name)


def _union(a: Dataset, b: Dataset) -> Dataset:
    arrays = {
        field: np.concatenate([getattr(a, field), getattr(b, field)])
        for field in ("labels", "indices")
    }
    images = join(a.images, b.images)
    return dataclasses.replace(a, **arrays, images=images, split="train+validation")
