"""The MMC table as text and as a figure: used by mmc_cifar10.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

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


def draw(rows: Rows, radii: Sequence[int], png: Path) -> None:
    """Accuracy over eps: under the paper's untargeted PGD-10, and in the worst case."""
    with report.figure(png, 2, 1, (5.0, 3.8)) as axes:
        for ax, column, start, title in (
            (axes[0], "pgd-10-un", "clean", "the paper's PGD-10, untargeted"),
            (axes[1], "worst", "clean (strong)", "worst case: margins, adaptive, AutoAttack"),
        ):
            for i, (name, seeds) in enumerate(rows.items()):
                known = {k: f"{column}@{k}" for k in radii if f"{column}@{k}" in seeds[0]}
                columns = {0: start} | known
                values = [[row[c] for c in columns.values()] for row in seeds if start in row]
                mean, x = 100 * np.mean(values, 0), list(columns)
                style = "--" if name.startswith("AT") else "-"
                ax.plot(x, mean, style, color=f"C{i}", marker="o", markersize=3, label=name)
                if len(values) > 1:
                    spread = 100 * np.std(values, 0, ddof=1)
                    ax.fill_between(x, mean - spread, mean + spread, color=f"C{i}", alpha=0.15)
            ax.set(title=title, xlabel="eps in 1/256", ylabel="accuracy, %", ylim=(0, 100))
            ax.set_xscale("symlog", base=2, linthresh=1)
            ax.set_xticks([0, *radii], [str(k) for k in (0, *radii)])
        axes[1].legend(fontsize=7)
