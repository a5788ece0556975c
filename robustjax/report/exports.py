"""The table of several runs for other programs: CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robustjax.archives import read_arrays
from robustjax.checks import checked
from robustjax.report.runs import read_rows
from robustjax.report.tables import row_cells

COLUMNS = ("run", "method", "data", "model", "threat", "eps", "attack", "accuracy", "stderr", "n")


@checked(host=True)
def csv_table(runs: Sequence[str | Path]) -> str:
    """One line for each run, setting and attack; accuracies and their errors are fractions.

    `pandas.read_csv` reads it. The attack 'clean' stands for none, 'worst case' for all under the
    threat.

    Raises:
      FileNotFoundError: a run has no report; the message has the command that makes it.

    >>> rj.report.csv_table([]).splitlines()
    ['run,method,data,model,threat,eps,attack,accuracy,stderr,n']
    """
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in (row for run in runs for row in read_rows(run)):
        report, errors = row["report"], row["report"]["stderr"]
        about = [row[name] for name in COLUMNS[:6]]
        found = {"clean": report["clean"], **report["robust"]}
        for name, value in found.items():
            writer.writerow([*about, name, value, errors.get(name), report.get("n")])
        worst = report["worst_case"], errors["worst_case"]
        writer.writerow([*about, "worst case", *worst, report.get("n")])
    return page.getvalue()


@checked(host=True)
def per_example(run: str | Path) -> dict[str, np.ndarray]:
    """What happened to each test image, in the setting that was evaluated last, as columns (N,).

    `pandas.DataFrame(per_example(run))` is a table: 'index', 'label', 'prediction', and for each
    attack 'ATTACK/fooled', 'ATTACK/distance', 'ATTACK/prediction' and others of `Report.examples`.

    Raises:
      FileNotFoundError: the run has no examples.npz; the message has the command that makes it.

    >>> rj.report.per_example("runs/missing")
    Traceback (most recent call last):
    FileNotFoundError: runs/missing has no examples.npz yet; run: robustjax evaluate runs/missing
    """
    path = Path(run) / "examples.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{run} has no examples.npz yet; run: robustjax evaluate {run}")
    return {
        name: column
        for name, column in read_arrays(path).items()
        if name != "setting" and not name.startswith("@")
    }


@checked(host=True)
def latex_table(runs: Sequence[str | Path]) -> str:
    """The table of `report.table` as LaTeX, for the package booktabs.

    Raises:
      FileNotFoundError: a run has no report; the message has the command that makes it.

    >>> print(rj.report.latex_table([]).splitlines()[0])
    \\begin{tabular}{lllllrr}
    """
    rows = [row for run in runs for row in read_rows(run)]
    head, *lines = [[_escaped(cell) for cell in line] for line in row_cells(rows)]
    columns = "l" * 5 + "r" * (len(head) - 5)
    body = [" & ".join(line) + r" \\" for line in lines]
    rule = [r"\begin{tabular}{" + columns + "}", r"\toprule", " & ".join(head) + r" \\"]
    return "\n".join([*rule, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])


def _escaped(text: str) -> str:
    """Text with LaTeX's special characters written out."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {c: "\\" + c for c in "&%$#_{}"} | {"±": r"$\pm$"}
    return "".join(special.get(c, c) for c in text)
