"""Folders of PNG and JPEG files, sorted into classes by sub-folders or by a CSV file."""

from __future__ import annotations

import collections
import csv
import functools
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robustjax.data import pictures
from robustjax.data.ahead import ahead
from robustjax.data.cache import decoded
from robustjax.data.carving import VALIDATION
from robustjax.data.dataset import Dataset
from robustjax.data.resize import sized
from robustjax.progress import bar

FOLDER = "folder:"
CSV = "labels.csv"
SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
"""What a split may be called -> its name."""
AHEAD = 16
"""Images that each thread may have decoded ahead."""


class Example(NamedTuple):
    """A file by its path below the folder, with its class, and its split if that is given."""

    place: str
    label: str
    split: str | None


class Folder:
    """The images below a folder, decoded once and cached.

    A set has one of three forms, and its classes are numbered in the order of their names:

    *   DIR/CLASS/*.png, with any folders in between.
    *   DIR/train/CLASS/*.png, and likewise DIR/test and DIR/validation (or DIR/val). DIR/test alone
        is a set to test models of another one on.
    *   DIR/labels.csv, with columns file (a path below DIR), label and perhaps split. Labels that
        are all whole numbers are in the order of numbers.

    Splits that are not given are drawn by the SHA-256 of each file's path below DIR: a fifth of the
    images for testing, and a tenth of the rest for validation, at most 1,000. A set with a
    validation split but no test split is tested on it. The examples of a split are in the order of
    a hash, too, so that the first n are a fair sample of the classes.

    Files may be PNG or JPEG, grey or colour: see `pictures`. Hidden files are skipped. A set is
    grey if all of its images are.

    Args:
      name: 'folder:DIR', or 'folder:DIR:size=64' for the central square of each image whose short
        side is resized to 64 pixels, which images of varying size need.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: a file or folder is not what the above says; the message names it.

    Guarantees:
      A new file moves no other one to another split (from 10,000 training images on, it may move
      one from validation to train).
    """

    def __init__(self, name: str):
        self.name = name
        path, self.size = sized(name)
        path = path.removeprefix(FOLDER)
        if path in ("", "folder"):
            raise ValueError(f"write the folder after the colon, folder:DIR, not {name!r}")
        self.root = Path(path).expanduser().resolve()
        if not self.root.is_dir():
            raise FileNotFoundError(f"{name}: there is no folder {self.root}")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have images."""
        return tuple(self._examples)

    def read(self, split: str) -> Dataset:
        """One split, from the cache if it has been decoded before."""
        examples, classes = self._examples[split], self._classes
        name = f"folder-{_word(self.root.name)}-{split}-{self._identity}"
        number = {label: k for k, label in enumerate(classes)}

        def shape() -> tuple[int, ...]:
            return (len(examples), *self._shape)

        def make() -> Iterator[tuple[np.ndarray, int]]:
            channels, threads = self._shape[-1], os.cpu_count() or 1

            def read(example: Example) -> np.ndarray:
                return pictures.pixels(self.root / example.place, channels, self.size)

            rows = bar(f"decode {self.name} {split}", examples, leave=False)
            with ahead(read, examples, AHEAD * threads, threads) as images:
                for example, image in zip(rows, images, strict=True):
                    yield image, number[example.label]

        arrays = decoded(name, shape, make)
        return Dataset(
            **arrays,
            indices=np.arange(len(examples)),
            name=self.name,
            split=split,
            num_classes=len(classes),
            class_names=classes,
        )

    @functools.cached_property
    def _examples(self) -> dict[str, list[Example]]:
        """The examples of each split, mixed, so that the first n are a fair sample."""
        parts = collections.defaultdict(list)
        for example in sorted(_listed(self.root), key=lambda e: (_drawn(e, "order"), e)):
            parts[example.split].append(example)
        if "test" not in parts and "validation" in parts:
            parts["test"] = parts.pop("validation")
        if "test" not in parts:
            for example in parts.pop(None, None) or parts.pop("train"):
                parts["test" if _drawn(example, "test") < 1 / 5 else "train"].append(example)
        if "train" in parts and "validation" not in parts:
            drawn = {e: _drawn(e, "validation") for e in parts["train"]}
            chosen = sorted((e for e in drawn if drawn[e] < 1 / 10), key=drawn.__getitem__)
            held_out = set(chosen[:VALIDATION])
            for example in parts.pop("train"):
                parts["validation" if example in held_out else "train"].append(example)
        return dict(parts)

    @functools.cached_property
    def _classes(self) -> tuple[str, ...]:
        """The names of the classes that models are trained on."""
        parts = self._examples
        if set(parts) not in ({"test"}, {"train", "validation", "test"}):
            raise ValueError(
                f"{self.name} has too few images to draw splits from; add images, or say what is "
                "for testing: DIR/train/CLASS and DIR/test/CLASS"
            )
        found = {e.label for e in parts.get("train", parts["test"])}
        for split, examples in parts.items():
            for example in examples:
                if example.label not in found:
                    raise ValueError(
                        f"class {example.label!r} of {self.root / example.place} ({split}) has no "
                        "image to train on; add some, or remove it"
                    )
        if len(found) == 1 and "train" in parts:
            raise ValueError(
                f"{self.name} has one class, {found.pop()!r}, and a classifier needs two: write "
                "DIR/CLASS/*.png"
            )
        numbers = (self.root / CSV).is_file() and all(re.fullmatch(r"\d+", c) for c in found)
        return tuple(sorted(found, key=int if numbers else None))

    @functools.cached_property
    def _shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images as they are read, from the headers of all files."""
        places = [e.place for part in self._examples.values() for e in part]
        threads = os.cpu_count() or 1
        with ahead(
            lambda place: pictures.shape(self.root / place), places, AHEAD * threads, threads
        ) as shapes:
            found = dict(zip(places, shapes, strict=True))
        channels = max(shape[-1] for shape in found.values())
        if self.size is not None:
            return self.size, self.size, channels
        first, height, width = places[0], *found[places[0]][:2]
        for place, shape in found.items():
            if shape[:2] != (height, width):
                raise ValueError(
                    f"the images of {self.name} vary in size ({first} has {height}x{width} pixels, "
                    f"{place} {shape[0]}x{shape[1]}): after its name, :size=64 resizes the short "
                    "side to 64 pixels and takes the central square"
                )
        return height, width, channels

    @property
    def _identity(self) -> str:
        """A word that changes with the folder, its files, their classes and splits, and size."""
        found = hashlib.sha256(repr((str(self.root), self.size, self._classes)).encode())
        for split, examples in sorted(self._examples.items()):
            for example in examples:
                about = os.stat(self.root / example.place)
                found.update(repr((split, *example, about.st_size, about.st_mtime_ns)).encode())
        return found.hexdigest()[:12]


def _drawn(example: Example, purpose: str) -> float:
    """A number in [0, 1) that depends on the file's path alone."""
    digest = hashlib.sha256(f"{purpose}:{example.place}".encode()).digest()
    return int.from_bytes(digest[:6]) / (1 << 48)


def _word(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)[:40]


def _listed(root: Path) -> list[Example]:
    """All examples below a folder, in any order."""
    if (root / CSV).is_file():
        return list(_from_csv(root))
    tops = _folders(root)
    named = [top for top in tops if top in SPLITS]
    if not named or (named != tops and not any(_folders(root / top) for top in named)):
        return list(_from_classes(root, root, None))
    for top in tops:
        if top not in SPLITS:
            raise ValueError(
                f"{root / top} is not a split: beside {named[0]} there may be "
                f"{', '.join(n for n in SPLITS if n != named[0])}"
            )
    return [e for top in named for e in _from_classes(root, root / top, SPLITS[top])]


def _folders(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _from_classes(root: Path, start: Path, split: str | None) -> Iterator[Example]:
    """The images in the sub-folders of `start`, each of which is a class."""

    def refuse(error: OSError) -> None:
        raise OSError(f"the folder {error.filename} cannot be read: {error.strerror}") from error

    classes, found = [], set()
    for folder, folders, files in os.walk(start, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                raise ValueError(
                    f"{os.path.join(folder, name)} is a link to a folder; put the folder there"
                )
        if folder == str(start):
            classes = folders
        label = os.path.relpath(folder, start).split(os.sep)[0]
        for name in files:
            path = os.path.join(folder, name)
            is_image = name.lower().endswith(pictures.SUFFIXES)
            if name.startswith(".") or (label == "." and not is_image):
                continue
            if label == ".":
                raise ValueError(f"{path} is in no class: images go into {start}/CLASS")
            if not is_image:
                raise ValueError(f"{path} is neither a PNG nor a JPEG file; convert or remove it")
            found.add(label)
            yield Example(_place(root, path), label, split)
    for label in classes:
        if label not in found:
            raise ValueError(
                f"the class folder {start / label} has no images; add some, or delete it"
            )
    if not classes:
        raise ValueError(
            f"{start} has no class folders: write {start}/CLASS/*.png, or {root / CSV}"
        )


def _from_csv(root: Path) -> Iterator[Example]:
    """The lines of labels.csv."""
    path, seen = root / CSV, set()
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            columns = lines.fieldnames or ()
            if not {"file", "label"} <= set(columns):
                raise ValueError(
                    "its first line must name the columns, file,label or file,label,split, not "
                    + repr(",".join(columns))
                )
            for row in lines:
                yield _from_row(root, row, "split" in columns, seen, lines.line_num)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from error
    if not seen:
        raise ValueError(f"{path} lists no files")


def _from_row(
    root: Path, row: dict[str, str | None], has_split: bool, seen: set[str], number: int
) -> Example:
    if None in row or None in row.values():
        raise ValueError(f"line {number} has another number of columns than the first")
    file, label = str(row["file"]).strip(), str(row["label"]).strip()
    if not file or not label:
        raise ValueError(f"line {number} has no {'label' if file else 'file'}")
    split = str(row["split"]).strip() if has_split else None
    if split is not None and split not in SPLITS:
        raise ValueError(f"line {number}: the split {split!r} must be one of {', '.join(SPLITS)}")
    place = _place(root, os.path.normpath(root / file))
    if place in seen:
        raise ValueError(f"line {number}: {file} is listed twice")
    seen.add(place)
    return Example(place, label, None if split is None else SPLITS[split])


def _place(root: Path, path: str) -> str:
    """The path of a file below the folder, which it must not leave."""
    if not os.path.realpath(path).startswith(str(root) + os.sep):
        raise ValueError(f"{path} leads out of {root}; copy the file into it")
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if not regular:
        raise ValueError(f"{path} is not a file")
    return Path(os.path.relpath(path, root)).as_posix()
