"""The table of a sweep: means and standard deviations over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustjax.checks import checked
from robustjax.files import read_json
from robustjax.report.cells import align, percent
from robustjax.report.runs import read_run


@checked(host=True)
def average(runs: Sequence[tuple[Mapping[str, str], str | Path]]) -> list[dict[str, Any]]:
    """The rows of `average_table`: runs whose labels differ only in 'seed' share one.

    Args:
      runs: the labels and the folder of each run: a report's accuracies count, or without a report
        the best on validation; an unfinished run has none.

    Returns:
      labels, values (column -> seed -> accuracy), mean and std (column -> number; std is None for
      one seed) of each row.

    >>> rj.report.average([({"method": "trades", "seed": "0"}, "runs/unfinished")])
    [{'labels': {'method': 'trades'}, 'values': {}, 'mean': {}, 'std': {}}]
    """
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for labels, folder in runs:
        shared = {axis: label for axis, label in labels.items() if axis != "seed"}
        row = rows.setdefault(tuple(shared.values()), {"labels": shared, "values": {}})
        for column, value in _accuracies(Path(folder)).items():
            row["values"].setdefault(column, {})[labels.get("seed", "")] = value
    for row in rows.values():
        found = {column: list(seeds.values()) for column, seeds in row["values"].items()}
        row["mean"] = {column: statistics.fmean(v) for column, v in found.items()}
        row["std"] = {c: statistics.stdev(v) if len(v) > 1 else None for c, v in found.items()}
    return list(rows.values())


def _accuracies(folder: Path) -> dict[str, float]:
    """The accuracies of one run by column."""
    if (folder / "report.json").exists():
        report = read_run(folder)["report"]
        found = {"clean": report["clean"], **report["robust"], "worst case": report["worst_case"]}
        return {name: value for name, value in found.items() if value is not None}
    path = folder / "training.json"
    return {"best on validation": read_json(path, {"best": float})["best"]} if path.exists() else {}


@checked(host=True)
def average_table(rows: Sequence[Mapping[str, Any]], markdown: bool = False) -> str:
    """The rows of `average` as a table, in per cent, with the number of runs.

    >>> row = {"labels": {"method": "trades"}, "values": {"clean": {"0": 0.75, "1": 0.8125}}}
    >>> row |= {"mean": {"clean": 0.78125}, "std": {"clean": 0.044}}
    >>> print(rj.report.average_table([row]))
    method       clean  runs
    ------  ----------  ----
    trades  78.1 ± 4.4     2
    """
    columns = list(dict.fromkeys(column for row in rows for column in row["values"]))
    axes = list(dict.fromkeys(axis for row in rows for axis in row["labels"]))
    cells = [[*axes, *columns, "runs"]]
    for row in rows:
        count = max((len(seeds) for seeds in row["values"].values()), default=0)
        numbers = [percent(row["mean"].get(c), row["std"].get(c)) for c in columns]
        cells.append([*(row["labels"].get(axis, "") for axis in axes), *numbers, str(count)])
    return align(cells, numbers_from=len(axes), markdown=markdown)
