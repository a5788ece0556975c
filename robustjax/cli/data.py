"""`robustjax data list | prepare`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from tyro.conf import Positional, subcommand

import robustjax as rj
from robustjax.cli.flags import read


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


DataOptions = (
    Annotated[ListOptions, subcommand(name="list")]
    | Annotated[PrepareOptions, subcommand(name="prepare")]
)


def command(words: Sequence[str]) -> None:
    """`robustjax data` with these words."""
    read(DataOptions, "data", words).run()
