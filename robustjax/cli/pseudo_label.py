"""`robustjax pseudo-label`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

import robustjax as rj
from robustjax.checks import check_number
from robustjax.cli.flags import read
from robustjax.writing import check_writable


@dataclasses.dataclass(frozen=True)
class PseudoLabelOptions:
    """Label unlabelled images by a trained model, for `train --extra`.

    Args:
      run: a run directory.
      data: arrays:DIR (train_images.npy) or arrays:FILE.npz (images), uint8 NHWC.
      out: the folder of the new pool: the images, labels and confidences as .npy.
      soft: also keep all probabilities, as soft targets.
      batch_size: of the model's passes. Results do not depend on it.
      weights: the best on validation, or the last.
      model: package.module:factory, for a run with a network of your own.
    """

    run: Positional[Path]
    data: str
    out: Path
    soft: bool = False
    batch_size: int = 256
    weights: Literal["best", "last"] = "best"
    model: str | None = None

    def __post_init__(self):
        check_number("--batch-size", self.batch_size, 1)


def command(words: Sequence[str]) -> None:
    """`robustjax pseudo-label` with these words."""
    options = read(PseudoLabelOptions, "pseudo-label", words)
    rj.parallel.use_all_cores()
    pseudo_label(options)


def pseudo_label(options: PseudoLabelOptions) -> None:
    """Label a pool of images by a trained model.

    Raises:
      OSError: the folder cannot be written.
      ValueError: the images have another shape than the model takes.
    """
    check_writable(options.out / "train_images.npy")
    logits_fn, _, settings = rj.models.load(options.run, options.weights, module=options.model)
    images = rj.data.open_pool(options.data)["images"]
    wanted = tuple(settings["image_shape"])
    if images.shape[1:] != wanted:
        raise ValueError(
            f"{options.data} holds images of shape {images.shape[1:]}; the model of {options.run} "
            f"takes {wanted}"
        )
    how = {"soft": options.soft, "batch_size": options.batch_size, "progress": True}
    rj.training.pseudo_label(logits_fn, images, options.out, **how)
    print(f"{options.out}: {len(images)} images; train with --extra arrays:{options.out}")
