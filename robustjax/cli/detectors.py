"""`robustjax detectors`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence

from tyro.conf import Positional

import robustjax as rj
from robustjax.cli.flags import read
from robustjax.report.cells import align


@dataclasses.dataclass(frozen=True)
class DetectorsOptions:
    """List the detectors, or the settings of one.

    The table shows each detector's paper, the training that a network needs for it, and its score.
    With names, the command prints their settings and defaults instead; change them as in
    k-density:sigma2=1/2.

    Args:
      names: detectors whose settings to list; none: a table of all detectors.
      markdown: print the table as Markdown.
    """

    names: Positional[tuple[str, ...]] = ()
    markdown: bool = False


def command(words: Sequence[str]) -> None:
    """`robustjax detectors` with these words."""
    options = read(DetectorsOptions, "detectors", words)
    for name in options.names:
        print(settings_of(name))
    if not options.names:
        rows = [("detector", "paper", "network", "score")]
        rows += [row(name, detector) for name, detector in rj.detection.DETECTORS.items()]
        print(align(rows, len(rows[0]), options.markdown))


def row(name: str, detector: rj.detection.Detector) -> tuple[str, str, str, str]:
    """A line of the table."""
    _, training = rj.detection.NEEDS.get(name, ("", "any"))
    summary = (inspect.getdoc(detector) or "-").partition("\n")[0]
    return name, rj.detection.PAPERS.get(name, "-"), training, summary


def settings_of(text: str) -> str:
    """A detector and a line for each of its settings."""
    settings = rj.spec.settings_of(rj.detection.parse(text))
    return "\n  ".join([text, *("=".join(pair) for pair in settings)])
