"""`robustjax models`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import robustjax as rj
from robustjax.cli.flags import read


@dataclasses.dataclass(frozen=True)
class ModelsOptions:
    """List the networks.

    Capitals stand for numbers, and what follows in brackets says which: resnet-DEPTH is resnet-20,
    resnet-32 and so on.
    """


def command(words: Sequence[str]) -> None:
    """`robustjax models` with these words."""
    read(ModelsOptions, "models", words)
    print("\n".join(rj.models.names()))
