"""`robustjax report`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

import robustjax as rj
from robustjax.cli.flags import read


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Print one table of several evaluated runs.

    Args:
      runs: evaluated run directories, or files of results.
      markdown: print the table as Markdown.
    """

    runs: Positional[tuple[Path, ...]]
    markdown: bool = False


def command(words: Sequence[str]) -> None:
    """`robustjax report` with these words."""
    report(read(ReportOptions, "report", words))


def report(options: ReportOptions) -> None:
    """Print one table of several evaluated runs.

    Raises:
      ValueError: no run is named.
    """
    if not options.runs:
        raise ValueError("name the run directories to compare: robustjax report RUN ...")
    print(rj.report.table(options.runs, markdown=options.markdown))
