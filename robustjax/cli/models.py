"""`robustjax models`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import robustjax as rj
from robustjax.cli.flags import read
from robustjax.report.cells import align


@dataclasses.dataclass(frozen=True)
class ModelsOptions:
    """List the networks.

    The table shows each network's paper, base width and activation, which --width and --activation
    change. Capitals stand for numbers, such as those in brackets.

    Args:
      markdown: print the table as Markdown.
    """

    markdown: bool = False


def command(words: Sequence[str]) -> None:
    """`robustjax models` with these words."""
    options = read(ModelsOptions, "models", words)
    rows = [("network", "paper", "width", "activation")]
    rows += [(a.name, a.paper, str(a.width), a.activation) for a in rj.models.ARCHITECTURES]
    rows += [(name, "-", "-", "-") for name in rj.models.names()[len(rj.models.ARCHITECTURES) :]]
    print(align(rows, len(rows[0]), options.markdown))
