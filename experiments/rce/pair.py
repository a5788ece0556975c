"""Two networks, one trained by RCE and one by the cross-entropy, in one results file and figure."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from figures import Draw, keep_arrays, redraw
from runner import wanted, write_result

from robustjax import report

Measured = tuple[dict[str, Any], dict[str, np.ndarray]]
"""A network's numbers, and the arrays of its panel."""


def compare(
    options: argparse.Namespace,
    names: Iterable[str],
    measure: Callable[[str, argparse.Namespace], Measured],
    draw: Draw,
) -> None:
    """Measure the networks that are wanted; with all of them, write the results and draw."""
    started, rows, arrays = time.time(), {}, {}
    for name in wanted(options, names):
        rows[name], more = measure(name, options)
        arrays |= more
    if options.only:
        return
    origin = report.provenance(report.command_line(), 0, started)
    keep_arrays(options.results, arrays)
    write_result(options.results, {"provenance": origin, "nets": rows})
    redraw(options.results, draw)
