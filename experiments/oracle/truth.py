"""The files that autoattack.py writes: the images that resist three seeds of pyautoattack."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robustjax import data

FOLDER = Path(__file__).parents[2] / "tests" / "golden"
NAMES = ("mnist", "cifar10")
NOT_RUN = -1


class Truth(NamedTuple):
    """One network on the first N test images, attacked stage by stage.

    Args:
      digest: of the images, which are not ours to hand on (`digest`).
      labels: (N,) int32.
      logits: (N, K) float32 on the images / 255.
      clean: (N,) bool, whether the network is right without an attack.
      eps: Linf radius, in [0, 1] pixels.
      stages: names, in the order they ran, each on the survivors of those before.
      seeds: one an evaluation.
      robust: (seeds, stages, N) int8, 1 where the network still stands after the stage, 0 where it
        does not, `NOT_RUN` where the stage has not run.
      seconds: (seeds, stages), NaN where it has not run; one thread of a shared machine.
      about: which images and which releases.
    """

    digest: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    clean: np.ndarray
    eps: np.ndarray
    stages: np.ndarray
    seeds: np.ndarray
    robust: np.ndarray
    seconds: np.ndarray
    about: np.ndarray

    @property
    def complete(self) -> np.ndarray:
        """(seeds,) bool: all stages have run."""
        return (self.robust != NOT_RUN).all((1, 2))

    @property
    def lowest(self) -> int:
        """The fewest images that an evaluation leaves standing."""
        return int(self.robust[self.complete, -1].sum(-1).min())


def path_of(name: str) -> Path:
    return FOLDER / f"autoattack_{name}.npz"


def read(name: str) -> Truth:
    with np.load(path_of(name), allow_pickle=False) as file:
        return Truth(**file)


def images(name: str, data_dir: str | None) -> np.ndarray:
    """The images (N, H, W, C) in [0, 1] that a truth is about, from a folder of TFDS sets.

    Raises:
      ValueError: they are not those that were attacked.
    """
    known = read(name)
    test = data.load(name, "test", data_dir).head(len(known.labels))
    if digest(test.images) != str(known.digest):
        raise ValueError(f"the first test images of {name} are not those of the golden file")
    return np.asarray(data.to_float(test.images))


def digest(pixels: np.ndarray) -> str:
    """SHA-256 of uint8 images."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def write(name: str, truth: Truth) -> None:
    """Replace the file at once, so that a run that is killed leaves a whole one."""
    partial = path_of(name).with_suffix(".partial.npz")
    np.savez_compressed(partial, **truth._asdict())
    os.replace(partial, path_of(name))
