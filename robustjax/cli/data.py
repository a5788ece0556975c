"""`robustjax data list | prepare`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from tyro.conf import Positional, arg, subcommand

from robustjax import data


@dataclasses.dataclass(frozen=True)
class List:
    """List the data sets that can be read now.

    Args:
      data_dir: the folder of prepared TFDS sets.
    """

    data_dir: str | None = None

    def run(self) -> None:
        """Print one line a set."""
        for name, line in data.available(self.data_dir).items():
            print(f"{name:16s} {line}")


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Download a TFDS set and write it where it can be read without TensorFlow.

    Args:
      name: the TFDS name, e.g. cifar10.
      data_dir: the folder to write into; None is TFDS's own.
    """

    name: Positional[str]
    data_dir: str | None = None

    def run(self) -> None:
        """Prepare it."""
        data.prepare(self.name, self.data_dir)


DataCommand = (
    Annotated[List, subcommand(name="list")] | Annotated[Prepare, subcommand(name="prepare")]
)


def data_command(command: Annotated[DataCommand, arg(name="")]) -> None:
    """List or prepare data sets."""
    command.run()
