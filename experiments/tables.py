"""The MMC table as text and as a figure: used by mmc_cifar10.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import LOSS_COLORS

from robustjax import report

WEAK = ("pgd-10-tar", "pgd-10-un", "pgd-50-tar", "pgd-50-un")
STRONG = ("pgd-mt", "adaptive", "worst")
Rows = Mapping[str, Sequence[Mapping[str, float]]]
"""The row's name -> per seed a column's name -> accuracy."""


def cell(seeds: Sequence[Mapping[str, float]], column: str, published: float | None = None) -> str:
    """The mean over seeds in percent, their standard deviation, the published figure behind it."""
    values = [100 * row[column] for row in seeds if column in row]
    text = f"{np.mean(values):.1f}" if values else ""
    text += f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return text if published is None else f"{text} ({published:g})"


def markdown(rows: Rows, published: Mapping[str, Sequence[float]], radii: Sequence[int]) -> str:
    """Two tables: the paper's columns, published figures in brackets; and the strong attacks."""
    pair = [k for k in (8, 16) if k in radii]
    weak = ["clean", *(f"{column}@{k}" for k in pair for column in WEAK)]
    strong = ["clean (strong)", *(f"{column}@{k}" for k in radii for column in STRONG)]
    lines = []
    for columns, beside in ((weak, published), (strong, {})):
        lines += [
            "",
            "| | " + " | ".join(columns) + " |",
            "| --- " + "| ---: " * len(columns) + "|",
        ]
        for name, seeds in rows.items():
            known = beside.get(name, [None] * len(columns))
            cells = [cell(seeds, c, p) for c, p in zip(columns, known, strict=True)]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines[1:])


def draw(results: Mapping[str, Any], png: Path) -> None:
    """Accuracy at each eps: under the paper's untargeted PGD-10, and in the worst case.

    A colour for each loss, filled where it was trained on clean images, hollow where on adversarial
    ones. Bars are standard deviations over seeds. Nothing was measured between radii: no lines.
    """
    rows, radii = results["rows"], results["scale"]["radii"]
    shapes = {"": "o", "AT-tar": "^", "AT-un": "s"}
    with report.figure(png, 2, 1, (6.0, 3.8), sharey=True) as axes:
        for ax, column, start, title in (
            (axes[0], "pgd-10-un", "clean", "the paper's PGD-10, untargeted"),
            (axes[1], "worst", "clean (strong)", "worst case: margins, adaptive, AutoAttack"),
        ):
            columns = (start, *(f"{column}@{k}" for k in radii))
            for i, (name, seeds) in enumerate(rows.items()):
                kind, color = (
                    name.removesuffix(_loss(name)).strip(),
                    LOSS_COLORS[_loss(name).replace("-10", "")],
                )
                found = {
                    place: [100 * row[c] for row in seeds if c in row]
                    for place, c in enumerate(columns)
                }
                found = {place: values for place, values in found.items() if values}
                x = np.array([*found]) + 0.7 * ((i + 0.5) / len(rows) - 0.5)
                spread = [np.std(v, ddof=1) if len(v) > 1 else 0 for v in found.values()]
                style = {"marker": shapes[kind], "mfc": "white" if kind else color}
                mean = [np.mean(v) for v in found.values()]
                ax.errorbar(x, mean, spread, ls="", color=color, ms=5, lw=1, label=name, **style)
            ax.set(title=title, xlabel="eps in 1/256 (0: clean images)", ylim=(-3, 100))
            ax.set_xticks(range(len(columns)), [0, *radii])
            ax.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
            ax.grid(False, axis="x")
            ax.grid(True, axis="x", which="minor")
            ax.tick_params(which="minor", length=0)
        axes[0].set_ylabel("accuracy, %")
        handles = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(*handles, loc="outside right center", fontsize=8)


def _loss(name: str) -> str:
    """The loss in a row's name: 'AT-tar MMC-10' -> 'MMC-10'."""
    return name.removeprefix("AT-tar ").removeprefix("AT-un ")
