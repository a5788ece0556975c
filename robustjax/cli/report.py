"""`robustjax report`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from robustjax import report


def show(runs: Positional[tuple[Path, ...]], markdown: bool = False) -> None:
    """Print one table of several evaluated runs.

    Args:
      runs: run directories that `robustjax evaluate` has been over, or files of results.
      markdown: print it as Markdown.
    """
    if not runs:
        raise ValueError("name the run directories to compare: robustjax report RUN ...")
    print(report.table(runs, markdown=markdown))
