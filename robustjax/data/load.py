"""A name and a split -> a data set; validation and test splits are carved where there are none."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from robustjax.data.arrays import ARRAYS, Arrays, Digits
from robustjax.data.dataset import Dataset
from robustjax.data.tfds import TFDS, prepared

SPLITS = ("train", "validation", "test", "train+validation")
VALIDATION = 1_000


class Source(Protocol):
    """Where a data set comes from."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its own splits."""

    def read(self, split: str) -> Dataset:
        """One of its own splits, indices 0 .. N-1."""


def load(name: str, split: str = "train", data_dir: str | None = None) -> Dataset:
    """Load one split of a data set.

    A set's own test and validation splits are used as they are. A validation split is otherwise
    carved out of train: a tenth of it, at most 1,000 examples, stratified by class (the size of
    Rice et al., 2020), and 'train' is what is left. A set with a validation split but no
    test split is tested on it, as is usual on ImageNet; one with neither gives a stratified fifth
    of train for testing. 'train+validation' is everything that is not for testing.

    Args:
      name: 'digits' (bundled, offline), 'arrays:DIR', or the TFDS name of an image classification
        set.
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
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
    source = _source(name, data_dir)
    own = source.splits
    if "train" not in own:
        raise ValueError(f"{name} has no train split; it has {', '.join(own)}")
    tested_on = next((s for s in ("test", "validation") if s in own), None)
    validated_on = "validation" if "validation" in own and tested_on == "test" else None
    if split == "test" and tested_on:
        return dataclasses.replace(source.read(tested_on), split="test")
    train = source.read("train")
    if validated_on and split != "train":
        validation = source.read(validated_on)
        validation = dataclasses.replace(validation, indices=validation.indices + len(train))
        return validation if split == "validation" else _union(train, validation)
    if validated_on:
        return train
    rows = _carve(train.labels, test=tested_on is None)[split]
    return dataclasses.replace(train.take(rows), split=split)


def available(data_dir: str | None = None) -> dict[str, str]:
    """What `load` can read now: name -> a line about it, for `robustjax data list`."""
    return {
        "digits": "1,797 images of 8x8x1, 10 classes, bundled with scikit-learn",
        "arrays:DIR": "DIR/{train,test}_{images,labels}.npy, images uint8 NHWC, labels integers",
        **prepared(data_dir),
    }


def _source(name: str, data_dir: str | None) -> Source:
    if name == Digits.name:
        return Digits()
    return Arrays(name) if name.startswith(ARRAYS) else TFDS(name, data_dir)


def _carve(labels: np.ndarray, test: bool) -> dict[str, np.ndarray]:
    """Rows of train for each split, ascending."""
    held_out = _stratified(labels, len(labels) // 5 if test else 0)
    rest = np.setdiff1d(np.arange(len(labels)), held_out)
    validation = rest[_stratified(labels[rest], min(len(rest) // 10, VALIDATION))]
    return {
        "train": np.setdiff1d(rest, validation),
        "validation": validation,
        "test": held_out,
        "train+validation": rest,
    }


def _stratified(labels: np.ndarray, size: int) -> np.ndarray:
    """`size` random rows, ascending, every class in its share.

    The k-th of a class's n examples, in random order, stands at (k + 1/2) / n; the sample is the
    `size` smallest. RandomState's stream is frozen (NEP 19), so no NumPy release moves the splits.
    """
    shuffled = np.random.RandomState(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    first = np.cumsum(counts) - counts
    of = labels[by_class]
    position = (np.arange(len(labels)) - first[of] + 0.5) / counts[of]
    return np.sort(by_class[np.argsort(position, kind="stable")[:size]])


def _union(a: Dataset, b: Dataset) -> Dataset:
    arrays = {
        field: np.concatenate([getattr(a, field), getattr(b, field)])
        for field in ("images", "labels", "indices")
    }
    return dataclasses.replace(a, **arrays, split="train+validation")
