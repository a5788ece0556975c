"""Image classification sets of TensorFlow Datasets (TFDS), read without TensorFlow.

`as_data_source` reads array_record files with NumPy and Pillow. `tfds.load` and `as_dataset` need
TensorFlow and are never used.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustjax.checks import checked
from robustjax.data.arrays import ARRAYS, Digits
from robustjax.data.cache import decoded
from robustjax.data.dataset import Dataset
from robustjax.data.folders import FOLDER
from robustjax.data.hub import HUB
from robustjax.data.resize import sized, square
from robustjax.lazy import Lazy
from robustjax.progress import bar
from robustjax.writing import locked

if TYPE_CHECKING:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import constants
else:
    constants = Lazy("tensorflow_datasets.core.constants")
    tfds = Lazy("tensorflow_datasets")

CHUNK = 256


class TFDS:
    """A prepared set, decoded once and cached.

    Args:
      name: its TFDS name, for instance 'cifar10' or 'imagenet_resized/32x32'; with ':size=64' after
        it the central square of each image whose short side is resized to 64 pixels, which sets of
        images of varying size need ('food101:size=64').
      data_dir: the folder of prepared sets; None is TFDS's own (TFDS_DATA_DIR, or
        ~/tensorflow_datasets).

    Raises:
      ValueError: TFDS has no such set, it is not a set of labelled uint8 images, or their size
        varies and the name gives none.
      FileNotFoundError: it is not prepared in that folder, or in another format; the message has
        the command.
    """

    def __init__(self, name: str, data_dir: str | None = None):
        self.name = name
        name, self.size = sized(name)
        self.builder = _builder(name, data_dir)
        self.image, self.label = _keys(self.builder.info)
        self.shape = _shape(self.builder.info, self.image, self.size)
        with _quiet():
            prepared = self.builder.is_prepared()
        if not prepared:
            raise FileNotFoundError(
                f"{name} is not prepared in {self.builder.data_path}; pass the --data-dir that "
                f"holds it, or run: robustjax data prepare {name}"
                f"{f' --data-dir {data_dir}' if data_dir else ''}"
            )
        _check_format(self.builder)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the set's own splits."""
        return tuple(self.builder.info.splits)

    def read(self, split: str) -> Dataset:
        """One of the set's own splits, from the cache if it has been decoded before."""
        feature = _features(self.builder.info)[self.label]
        size = self.builder.info.splits[split].num_examples
        name, shape = self._cache_name(split), (size, *self.shape)
        arrays = decoded(name, lambda: shape, lambda: self._decode(split))
        return Dataset(
            **arrays,
            indices=np.arange(len(arrays["labels"])),
            name=self.name,
            split=split,
            num_classes=feature.num_classes,
            class_names=tuple(feature.names),
        )

    def _cache_name(self, split: str) -> str:
        """A name that changes with the set's folder, version and files."""
        files = [Path(f).stat() for f in self.builder.info.splits[split].filepaths]
        source = str(Path(self.builder.data_path).resolve())
        identity = repr((source, [(f.st_size, f.st_mtime_ns) for f in files]))
        digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
        name = "-".join(re.split(r"[/:=]", self.name))
        return f"{name}-{self.builder.version}-{split}-{digest}"

    def _decode(self, split: str) -> Iterator[tuple[np.ndarray, int]]:
        source: Any = self.builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
        size = len(source)
        title = f"decode {self.name} {split}"
        with _quiet(), bar(title, total=size, leave=False) as images:
            for start in range(0, size, CHUNK):
                rows = range(start, min(start + CHUNK, size))
                for row, example in zip(rows, source.__getitems__(rows), strict=True):
                    yield self._sized(row, example), example[self.label]
                images.update(len(rows))

    def _sized(self, row: int, example: dict[str, Any]) -> np.ndarray:
        """The image of an example, resized if a size is asked for."""
        if self.size is None:
            return example[self.image]
        try:
            return square(example[self.image], self.size, self.shape[-1])
        except ValueError as error:
            raise ValueError(f"image {row} of {self.name} cannot be read: {error}") from error


@checked
def prepare(name: str, data_dir: str | None = None) -> Path:
    """Download a TFDS set and write it as array_record.

    Args:
      name: its TFDS name; a size after it does not matter here.
      data_dir: the folder of prepared sets; None is TFDS's own.

    Returns:
      The folder of this set.

    Raises:
      ValueError: TFDS has no such set, or it is not a set of labelled uint8 images.
      FileNotFoundError: the folder holds the set in another format, or its files must be
        downloaded by hand; the message says what goes where.
      ModuleNotFoundError: TFDS needs TensorFlow to encode this set's arrays, and it is missing.

    Guarantees:
      What a killed preparation left is removed by the next one.

    >>> rj.data.prepare("cifar10")  # doctest: +SKIP
    PosixPath('/home/me/tensorflow_datasets/cifar10/3.0.2')
    """
    if name == Digits.name or name.startswith((ARRAYS, FOLDER, HUB)):
        raise ValueError(f"{name} needs no preparation; only TFDS sets do")
    name, _ = sized(name)
    builder = _builder(name, data_dir)
    _keys(builder.info)
    try:
        with _alone(builder), _naming_the_extra(f"preparing {name}"):
            builder.download_and_prepare(file_format=tfds.core.FileFormat.ARRAY_RECORD)
    except AssertionError as error:  # TFDS raises it if a licence forbids the download
        what = " ".join(str(error).split())
        raise FileNotFoundError(f"{name} must be downloaded by hand: {what}") from error
    _check_format(builder)
    return Path(builder.data_path)


@contextlib.contextmanager
def _alone(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Be the only one that prepares a set, and remove what those that were killed left."""
    folder = Path(builder.data_path).parent
    if Path(builder.data_path).exists():  # nothing will be written
        yield
        return
    with locked(folder, "the preparation"):
        for unfinished in folder.glob("incomplete.*"):
            shutil.rmtree(unfinished)
        yield


def prepared(data_dir: str | None = None) -> dict[str, str]:
    """The image classification sets found in a folder: name -> version and splits."""
    folder = Path(data_dir or constants.DATA_DIR).expanduser()
    found = {}
    for pattern in ("*/*", "*/*/*"):
        for path in sorted(folder.glob(f"{pattern}/dataset_info.json")):
            info = tfds.builder_from_directory(path.parent).info
            with contextlib.suppress(ValueError):
                image, _ = _keys(info)
                if info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
                    splits = (f"{s} {info.splits[s].num_examples:,}" for s in info.splits)
                    name = path.parent.parent.relative_to(folder).as_posix()
                    varies = None in _features(info)[image].shape
                    more = f"; of varying size: {name}:size=64 is 64x64" if varies else ""
                    found[name] = f"{info.version}: {', '.join(splits)}{more}"
    return found


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    folder = Path(data_dir).expanduser() if data_dir else None
    try:
        with _naming_the_extra(f"describing {name}"):
            return tfds.builder(name, data_dir=folder)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        names = ["digits", *tfds.list_builders(with_community_datasets=False)]
        close = difflib.get_close_matches(name, names, n=3)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise ValueError(
            f"unknown data set {name!r}{hint}; use digits, folder:DIR, arrays:DIR, hf:NAME, or the "
            "TFDS name of an image classification set"
        ) from error


def _keys(info: tfds.core.DatasetInfo) -> tuple[str, str]:
    """The names of the image and the label among the features."""
    keys, features = [], _features(info)
    for position, kind in enumerate((tfds.features.Image, tfds.features.ClassLabel)):
        found = [k for k, feature in features.items() if isinstance(feature, kind)]
        named = [info.supervised_keys[position]] if info.supervised_keys else []
        choice = [k for k in found if k in named] or found
        if len(choice) != 1:
            raise ValueError(
                f"{info.name} is not an image classification set: among its features "
                f"({', '.join(features)}) {len(choice)} could be the {kind.__name__}"
            )
        keys += choice
    image = features[keys[0]]
    if image.np_dtype != np.uint8 or image.shape[-1] is None:
        raise ValueError(
            f"{info.name} has {np.dtype(image.np_dtype).name} images of shape {image.shape}, where "
            "None varies; make uint8 arrays of one shape of them and use arrays:DIR"
        )
    return keys[0], keys[1]


def _shape(info: tfds.core.DatasetInfo, image: str, size: int | None) -> tuple[int, int, int]:
    """The shape of the images as they are read."""
    shape = _features(info)[image].shape
    if size is None and None in shape:
        raise ValueError(
            f"the images of {info.full_name} vary in size: after its name, :size=64 resizes the "
            "short side to 64 pixels and takes the central square"
        )
    if size is not None and shape[-1] not in (1, 3):
        raise ValueError(f"{info.full_name} has images of {shape[-1]} channels; 1 or 3 are resized")
    return shape if size is None else (size, size, shape[-1])


def _features(info: tfds.core.DatasetInfo) -> Any:
    """The features by name; empty if the set's features are not a dictionary."""
    return info.features if isinstance(info.features, tfds.features.FeaturesDict) else {}


def _check_format(builder: tfds.core.DatasetBuilder) -> None:
    found = builder.info.file_format
    if found != tfds.core.FileFormat.ARRAY_RECORD:
        raise FileNotFoundError(
            f"{builder.name} is stored as {found and found.value} in {builder.data_path}, which "
            "only TensorFlow reads; prepare it in another folder: "
            f"robustjax data prepare {builder.name} --data-dir DIR"
        )


@contextlib.contextmanager
def _naming_the_extra(what: str) -> Iterator[None]:
    """Say what to install if TFDS lacks a package, usually TensorFlow."""
    try:
        yield
    except ModuleNotFoundError as error:
        root = error
        while isinstance(root.__cause__, ModuleNotFoundError):
            root = root.__cause__
        package = "'robustjax[prepare]'" if root.name == "tensorflow" else root.name
        raise ModuleNotFoundError(
            f"{what} needs {root.name}: pip install {package} (reading a prepared set never does)",
            name=root.name,
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence TFDS's advice to install OpenCV and its notes on folders that do not exist yet."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
