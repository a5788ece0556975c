"""Labels from a trained model for unlabelled images (Carmon et al. 2019; Alayrac et al. 2019)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.tree_util import Partial
from numpy.lib.format import open_memmap

from robustjax.attacks._engine.model import one_example
from robustjax.attacks._engine.tiles import over_tiles
from robustjax.checks import INF, checked
from robustjax.data.augment import to_float
from robustjax.data.pools import chunks
from robustjax.progress import bar
from robustjax.writing import locked, replacing


@checked(images="N H W C", batch_size=(1, INF))
def pseudo_label(
    logits_fn: Callable,
    images: np.ndarray,
    out: str | Path,
    soft: bool = False,
    batch_size: int = 256,
    progress: bool = False,
) -> None:
    """Write a pool for `data.load_extra`: the images and the labels that the model gives them.

    `out` then holds train_images.npy, train_labels.npy (N,), train_confidence.npy (N,), the
    probability of the label, and, if `soft`, train_targets.npy (N, K).

    Args:
      logits_fn: a batch of images in [0, 1] -> logits (B, K).
      images: (N, H, W, C) uint8; may be memory-mapped, as it is read in parts.
      out: a folder without a pool.
      soft: keep all probabilities as targets, float32.
      batch_size: of the model's passes; results do not depend on it.
      progress: show a progress bar.

    Raises:
      ValueError: the folder holds images already, or the images are not what is said above.

    Guarantees:
      Files get their names when all are complete: an interrupted call leaves no pool.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> images = np.full((2, 4, 4, 3), (0, 9, 0), np.uint8)
    >>> pseudo_label(lambda x: x.mean((1, 2)), images, folder)
    >>> rj.data.load_extra(f"arrays:{folder}", num_classes=3).labels.tolist()
    [1, 1]
    """
    out = Path(out)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"images must be uint8 (N, H, W, C), got {images.dtype} of shape {images.shape}"
        )
    with locked(out, "pseudo-label"):
        if (out / "train_images.npy").exists():
            raise ValueError(f"{out} holds images already; choose another folder")
        for name in KINDS:  # left by an interrupted call, perhaps with another model
            for path in (out / f".train_{name}.npy", out / f"train_{name}.npy"):
                path.unlink(missing_ok=True)
        model = logits_fn if isinstance(logits_fn, Partial) else Partial(logits_fn)
        _write(model, images, out, soft, batch_size, progress)


KINDS = ("confidence", "labels", "targets", "images")
"""The files of a pool, images last: a folder without them is no pool."""


def _write(
    model: Partial, images: np.ndarray, out: Path, soft: bool, batch_size: int, progress: bool
) -> None:
    copy = open_memmap(out / ".train_images.npy", "w+", np.uint8, images.shape)
    labels, confidence, targets = [], [], None
    for rows in bar("label", list(chunks(len(images))), disable=not progress):
        copy[rows] = images[rows]
        probabilities = over_tiles(_probabilities, (model,), {"image": copy[rows]}, batch_size)
        labels.append(probabilities.argmax(-1).astype(np.int32))
        confidence.append(probabilities.max(-1))
        if soft:
            if targets is None:
                shape = len(images), probabilities.shape[-1]
                targets = open_memmap(out / ".train_targets.npy", "w+", np.float32, shape)
            targets[rows] = probabilities
    for name, parts in (("confidence", confidence), ("labels", labels)):
        with replacing(out / f".train_{name}.npy") as file:
            np.save(file, np.concatenate(parts))
    for array in (copy, targets):
        if array is not None:
            array.flush()
    for name in KINDS:
        with contextlib.suppress(FileNotFoundError):  # there may be no targets
            (out / f".train_{name}.npy").replace(out / f"train_{name}.npy")


def _probabilities(logits_fn, row):
    return jax.nn.softmax(one_example(logits_fn)(to_float(row["image"])))
