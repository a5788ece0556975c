"""Memory-mapped pools of extra images: generated, or unlabelled and to be pseudo-labelled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from robustjax.archives import map_array, map_arrays
from robustjax.checks import INF, checked
from robustjax.data.arrays import ARRAYS
from robustjax.data.dataset import Dataset

KINDS = ("images", "labels", "targets")
CHUNK = 4096


@checked
def open_pool(name: str) -> dict[str, np.ndarray]:
    """Map the arrays of a pool: 'images', and 'labels' and 'targets' if it has them.

    Args:
      name: 'arrays:DIR' with DIR/train_images.npy and optionally DIR/train_labels.npy and
        DIR/train_targets.npy; or 'arrays:FILE.npz' with arrays of these names (images, or image as
        in published sets), written by `np.savez`. A compressed file cannot be mapped.

    Raises:
      FileNotFoundError: there are no images.
      ValueError: another kind of name, or a compressed or damaged file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/pool.npz", images=np.zeros((100, 8, 8, 1), np.uint8))
    ...     rj.data.open_pool(f"arrays:{folder}/pool.npz")["images"].shape
    (100, 8, 8, 1)
    """
    if not name.startswith(ARRAYS):
        raise ValueError(f"extra data must be arrays:DIR or arrays:FILE.npz, got {name!r}")
    path = Path(name.removeprefix(ARRAYS)).expanduser()
    found = _archive(path) if path.suffix == ".npz" else _folder(path)
    if "images" not in found:
        raise FileNotFoundError(
            f"{name} has no images: write DIR/train_images.npy, or a .npz with images (uint8 NHWC)"
        )
    return found


@checked(num_classes=(2, INF))
def load_extra(name: str, num_classes: int) -> Dataset:
    """Load a pool with labels, soft targets or both as a data set of extra training examples.

    If there are no labels, the class with the largest target is an example's label.

    Args:
      name: see `open_pool`.
      num_classes: K, as in the data set that it extends.

    Raises:
      FileNotFoundError, ValueError: see `open_pool`.
      ValueError: neither labels nor targets, or targets that are not distributions.

    Guarantees:
      Images and targets stay on disk; targets are checked once, in chunks.

    >>> import tempfile
    >>> images, targets = np.zeros((2, 8, 8, 1), np.uint8), np.array([[0.9, 0.1], [0.3, 0.7]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/pool.npz", images=images, targets=targets)
    ...     rj.data.load_extra(f"arrays:{folder}/pool.npz", num_classes=2).labels.tolist()
    [0, 1]
    """
    pool = open_pool(name)
    images, labels, targets = pool["images"], pool.get("labels"), pool.get("targets")
    if labels is None and targets is None:
        raise ValueError(
            f"{name} has neither labels nor targets; `robustjax pseudo-label RUN --data {name}` "
            "makes them"
        )
    if targets is not None:
        likely = [_most_likely(name, targets[rows]) for rows in chunks(len(targets))]
        labels = np.concatenate(likely) if labels is None else labels
    rows = np.arange(len(images))
    return Dataset(images, np.asarray(labels), rows, name, "extra", num_classes, targets=targets)


def chunks(size: int) -> Iterator[slice]:
    """Consecutive slices of a moderate length that cover `size` rows."""
    return (slice(start, start + CHUNK) for start in range(0, size, CHUNK))


def _most_likely(name: str, targets: np.ndarray) -> np.ndarray:
    good = targets.ndim == 2 and (targets >= 0).all()
    if not good or not np.allclose(targets.sum(-1, dtype=np.float64), 1, atol=1e-2):
        raise ValueError(f"{name}: targets must be distributions (N, K), not negative, with sum 1")
    return targets.argmax(-1)


def _folder(path: Path) -> dict[str, np.ndarray]:
    files = {kind: path / f"train_{kind}.npy" for kind in KINDS}
    return {kind: map_array(file) for kind, file in files.items() if file.is_file()}


def _archive(path: Path) -> dict[str, np.ndarray]:
    arrays = map_arrays(path)
    names = {kind: name for kind in KINDS for name in (kind[:-1], kind) if name in arrays}
    return {kind: arrays[name] for kind, name in names.items()}
