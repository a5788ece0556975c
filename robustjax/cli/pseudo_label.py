"""`robustjax pseudo-label`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from robustjax import config, data, models, training


@dataclasses.dataclass(frozen=True)
class PseudoLabelling:
    """Let a trained model label images that have no labels, for `train --extra`.

    Args:
      run: a run directory.
      data: arrays:DIR (train_images.npy) or arrays:FILE.npz (images), uint8 NHWC.
      out: the folder of the new pool: the images, labels and confidences as .npy.
      soft: also keep all probabilities, as soft targets.
      batch_size: of the model's passes. Results do not depend on it.
      weights: the best on validation, or the last.
    """

    run: Positional[Path]
    data: str
    out: Path
    soft: bool = False
    batch_size: int = 256
    weights: Literal["best", "last"] = "best"

    def __post_init__(self):
        config.check_number("--batch-size", self.batch_size, 1)


def pseudo_label_command(options: Annotated[PseudoLabelling, arg(name="")]) -> None:
    """Label a pool of images by a trained model."""
    logits_fn, _, settings = models.load(options.run, options.weights)
    images = data.open_pool(options.data)["images"]
    wanted = tuple(settings["image_shape"])
    if images.shape[1:] != wanted:
        raise ValueError(
            f"{options.data} holds images of shape {images.shape[1:]}; the model of {options.run} "
            f"takes {wanted}"
        )
    how = {"soft": options.soft, "batch_size": options.batch_size, "progress": True}
    training.pseudo_label(logits_fn, images, options.out, **how)
    print(f"{options.out}: {len(images)} images; train with --extra arrays:{options.out}")
