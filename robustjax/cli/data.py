"""`robustjax data list | show | prepare`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tyro.conf import Positional

import robustjax as rj
from robustjax.cli import unknown_command
from robustjax.cli.flags import read
from robustjax.writing import check_writable


@dataclasses.dataclass(frozen=True)
class ListOptions:
    """List the available data sets.

    Args:
      data_dir: the folder of prepared TFDS sets.
    """

    data_dir: str | None = None

    def run(self) -> None:
        """Print one line per set."""
        for name, line in rj.data.available(self.data_dir).items():
            print(f"{name:16s} {line}")


@dataclasses.dataclass(frozen=True)
class ShowOptions:
    """Print what a data set holds, and draw some of its images.

    Args:
      name: as for `train --data`, e.g. digits, folder:DIR or cifar10.
      split: train, validation, test or train+validation.
      out: a PNG of the first images of each class, of at most ten classes.
      data_dir: the folder of prepared TFDS sets.
    """

    name: Positional[str]
    split: str = "train"
    out: Path | None = None
    data_dir: str | None = None

    def run(self) -> None:
        """Print a line about the images and one for each class; write the figure."""
        if self.out is not None:
            check_writable(self.out)
        found = rj.data.load(self.name, self.split, self.data_dir)
        used = np.flatnonzero(found.levels().sum(0))
        mean, deviation = (
            ", ".join(f"{number:.3f}" for number in numbers)
            for numbers in found.channel_statistics()
        )
        shape = "x".join(map(str, found.image_shape))
        print(f"{found.name} ({found.split}): {len(found):,} images of {shape}")
        print(f"pixels {used[0]} to {used[-1]} of 255; mean {mean}, standard deviation {deviation}")
        names = found.class_names or tuple(map(str, range(found.num_classes)))
        width = max(map(len, ("class", *names)))
        print(f"{'class':{width}}  images   share")
        counts = np.bincount(found.labels, minlength=found.num_classes)
        for name, count in zip(names, counts, strict=True):
            print(f"{name:{width}}  {count:6,}  {count / len(found):6.1%}")
        if self.out is not None:
            rj.report.class_grid(found, self.out)
            print(f"the first images of each class: {self.out}")


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """Download a TFDS set and store it in a format that is read without TensorFlow.

    Args:
      name: the TFDS name, e.g. cifar10.
      data_dir: the folder to write into; None: TFDS's default.
    """

    name: Positional[str]
    data_dir: str | None = None

    def run(self) -> None:
        """Prepare it."""
        rj.data.prepare(self.name, self.data_dir)


PARTS = {"list": ListOptions, "show": ShowOptions, "prepare": PrepareOptions}
"""`robustjax data NAME` -> its options."""


def command(words: Sequence[str]) -> None:
    """`robustjax data` with these words.

    Raises:
      ValueError: the first is none of list, show and prepare.
    """
    name, *rest = words or ("",)
    if name in ("-h", "--help", "--help-all"):
        print(help_text())
    elif name in PARTS:
        read(PARTS[name], f"data {name}", rest).run()
    else:
        raise ValueError(unknown_command(name, PARTS, "data "))


def help_text() -> str:
    """The text of `robustjax data --help`."""
    rows = (f"  {name:10s}{options.__doc__}".split("\n")[0] for name, options in PARTS.items())
    return "\n".join(["usage: robustjax data COMMAND ...", "", *rows])
