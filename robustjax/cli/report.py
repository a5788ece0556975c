"""`robustjax report`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

import robustjax as rj
from robustjax.cli.flags import read
from robustjax.writing import check_writable, replacing

FORMATS = {
    "text": rj.report.table,
    "markdown": functools.partial(rj.report.table, markdown=True),
    "csv": rj.report.csv_table,
    "latex": rj.report.latex_table,
    "html": rj.report.html_page,
    "card": rj.report.model_card,
}
"""Name -> a function of run directories that returns text."""


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Print one table of several evaluated runs.

    Args:
      runs: evaluated run directories, or files of results.
      format: of the results. text and markdown: the table; csv: a line for each run and attack;
        latex: for booktabs; html: one page with the figures, the stages, the flags and where the
        numbers come from, in one file; card: the same as Markdown, with links to the figures.
      out: a file for the text instead of the terminal.
    """

    runs: Positional[tuple[Path, ...]]
    format: Literal["text", "markdown", "csv", "latex", "html", "card"] = "text"
    out: Path | None = None


def command(words: Sequence[str]) -> None:
    """`robustjax report` with these words."""
    report(read(ReportOptions, "report", words))


def report(options: ReportOptions) -> None:
    """Print one table of several evaluated runs.

    Raises:
      ValueError: no run is named, or --format html without --out.
    """
    if not options.runs:
        raise ValueError("name the run directories to compare: robustjax report RUN ...")
    if options.format == "html" and options.out is None:
        raise ValueError("--format html needs --out, such as --out report.html")
    if options.out is not None:
        check_writable(options.out)
    text = FORMATS[options.format](options.runs)
    if options.out is None:
        print(text)
    else:
        with replacing(options.out) as file:
            file.write(f"{text.rstrip()}\n".encode())
