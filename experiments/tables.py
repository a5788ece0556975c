"""The MMC table as text and as a figure: used by mmc_cifar10.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

WEAK = ("pgd-10-tar", "pgd-10-un", "pgd-50-tar", "pgd-50-un")
STRONG = ("pgd-mt", "worst")
Rows = Mapping[str, Sequence[Mapping[str, float]]]
"""The row's name -> per seed a column's name -> accuracy."""


def cell(seeds: Sequence[Mapping[str, float]], column: str, published: float | None = None) -> str:
    """The mean over seeds in percent, the published figure behind it."""
    values = [100 * row[column] for row in seeds if column in row]
    text = f"{np.mean(values):.1f}" if values else ""
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
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, column, start, title in (
        (axes[0], "pgd-10-un", "clean", "the paper's PGD-10, untargeted"),
        (axes[1], "worst", "clean (strong)", "worst case: margins, adaptive, AutoAttack"),
    ):
        for i, (name, seeds) in enumerate(rows.items()):
            known = {k: f"{column}@{k}" for k in radii if f"{column}@{k}" in seeds[0]}
            columns = {0: start} | known
            values = [[row[c] for c in columns.values()] for row in seeds if start in row]
            values, x = np.array(values), list(columns)
            style = "--" if name.startswith("AT") else "-"
            mean = 100 * values.mean(0)
            axis.plot(x, mean, style, color=f"C{i}", marker="o", markersize=3, label=name)
            if len(values) > 1:
                spread = 100 * values.std(0, ddof=1)
                axis.fill_between(x, mean - spread, mean + spread, color=f"C{i}", alpha=0.15)
        axis.set(title=title, xlabel="eps in 1/256")
        axis.set_xscale("symlog", base=2, linthresh=1)
        axis.set_xticks([0, *radii], [str(k) for k in (0, *radii)])
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="accuracy, %", ylim=(0, 100))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(png, dpi=110)
    plt.close(figure)
