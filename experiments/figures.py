"""Results files and their figures: each is drawn from its file, when it is made and by --draw.

NAME.json has NAME.png beside it, and NAME.npz where the points of the figure are too many for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustjax import files
from robustjax.report.figures import COLORS
from robustjax.writing import replacing

if TYPE_CHECKING:
    from matplotlib.axis import Axis

Draw = Callable[[dict[str, Any], Path], None]
"""draw(what the results file holds, path of the figure)."""

LOSS_COLORS = {
    "SCE": COLORS[0],
    "MMC": COLORS[1],
    "MMLDA": COLORS[3],
    "L-GM": COLORS[4],
    "MMC (rand)": COLORS[5],
    "Center": COLORS[6],
}
"""The colour of each loss in all figures."""
ADVERSARIAL = COLORS[2]
"""That of adversarial training, where it is beside them."""
CLASS_COLORS = (
    *("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple"),
    *("tab:brown", "tab:pink", "tab:gray", "tab:olive", "tab:cyan"),
)
"""The colours of ten classes."""


def add_flag(parser: argparse.ArgumentParser) -> None:
    """The flag that draws and computes nothing."""
    parser.add_argument(
        "--draw", action="store_true", help="draw the figure again from the results, and stop"
    )


def redraw(path: Path, draw: Draw) -> None:
    """Draw the figure of a results file, beside it."""
    if not path.exists():
        sys.exit(f"{Path(sys.argv[0]).name}: there is no {path} to draw")
    draw(read(path), path.with_suffix(".png"))


def plain_ticks(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as people read numbers: 0.1, 1, 10, 60.

    Those between the powers of ten only where there are few of these.
    """
    low, high = axis.get_view_interval()
    axis.set(major_formatter="{x:g}", minor_formatter="{x:g}" if high < 30 * low else "")


def read(path: Path) -> dict[str, Any]:
    """A results file; the arrays beside it are its "arrays"."""
    content, beside = files.read_json(path), path.with_suffix(".npz")
    if beside.exists():
        with np.load(beside) as kept:
            content["arrays"] = dict(kept)
    return content


def keep_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Put the arrays of a figure beside its results file."""
    with replacing(path.with_suffix(".npz")) as file:
        np.savez_compressed(file, **arrays)
