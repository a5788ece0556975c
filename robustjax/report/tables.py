"""Tables: of several runs, of an ensemble's stages, of transfer and of detection."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustjax.checks import checked
from robustjax.files import check_content
from robustjax.report.cells import align, format_eps, percent
from robustjax.report.runs import read_rows
from robustjax.report.warned import merged

MAYBE = (float, type(None))
"""A number, or null where there are no images to count."""


@checked(host=True)
def table(runs: Sequence[str | Path], markdown: bool = False) -> str:
    """One aligned table of several runs, followed by missing reports and warnings, a line each.

    Accuracies are in percent. A run has a row for each setting that it was evaluated in (threat,
    images, seed, weights ...). Each attack of any row has a column, with "-" for the rows without
    it. The worst case, in which an example counts if it withstands all attacks under the threat,
    comes with its standard error; the lines below say which attacks these are.

    Args:
      runs: paths for `read_run`; a run without a report is named with the command that makes it.
      markdown: a Markdown table; otherwise plain columns.

    Raises:
      FileNotFoundError: no run has a report.

    >>> import tempfile
    >>> threat = rj.config.encode(rj.threats.Linf(8 / 255))
    >>> method = {"type": "TRADES", "fields": {}}
    >>> config = {"method": method, "data": {"name": "cifar10"}, "model": {"name": "cnn"}}
    >>> report = {"clean": 0.8125, "robust": {"pgd-10": 0.5}, "worst_case": 0.495, "warnings": []}
    >>> report |= {"stderr": {"worst_case": 0.016}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/a.json"
    ...     rj.report.write_json(path, {"config": config | {"threat": threat}, "report": report})
    ...     print(rj.report.table([path]))
    run  method  data     model  threat      clean  pgd-10  worst case
    ---  ------  -------  -----  ----------  -----  ------  ----------
    a    TRADES  cifar10  cnn    Linf 8/255   81.2    50.0  49.5 ± 1.6
    worst case over pgd-10
    """
    rows, missing = [], []
    for run in runs:
        try:
            rows += read_rows(run)
        except FileNotFoundError as error:
            missing.append(str(error))
    if missing and not rows:
        raise FileNotFoundError("; ".join(missing))
    return "\n".join([rows_table(rows, markdown), *missing])


@checked(host=True)
def rows_table(rows: Sequence[Mapping[str, Any]], markdown: bool = False) -> str:
    """The table of `table` for rows of `run_rows`.

    >>> threat = rj.config.encode(rj.threats.Linf(8 / 255))
    >>> config = {"method": {"type": "TRADES", "fields": {}}, "data": {"name": "cifar10"}}
    >>> config |= {"model": {"name": "cnn"}, "threat": threat}
    >>> report = {"clean": 0.8125, "robust": {}, "worst_case": 0.8125, "warnings": []}
    >>> report |= {"stderr": {"worst_case": 0.01}}
    >>> print(rj.report.rows_table(rj.report.run_rows("a", config, report)))
    run  method  data     model  threat      clean  worst case
    ---  ------  -------  -----  ----------  -----  ----------
    a    TRADES  cifar10  cnn    Linf 8/255   81.2  81.2 ± 1.0
    """
    notes = _worst_cases(rows)
    for row in rows:
        notes += [*_survivors(row), *_calls_an_image(row)]
    notes += [f"warning: {line}" for line in merged(rows)]
    gap = [""] if markdown and notes else []  # or they would be rows
    return "\n".join([align(row_cells(rows), numbers_from=5, markdown=markdown), *gap, *notes])


def row_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The header and the lines of `rows_table`."""
    attacks = dict.fromkeys(name for row in rows for name in row["report"]["robust"])
    cells = [["run", "method", "data", "model", "threat", "clean", *attacks, "worst case"]]
    for row in rows:
        report = row["report"]
        robust = [percent(report["robust"].get(name)) for name in attacks]
        worst = percent(report["worst_case"], report["stderr"]["worst_case"])
        threat = f"{row['threat']} {format_eps(row['eps'])}"
        about = [row["run"], row["method"], row["data"], row["model"], threat]
        cells.append([*about, percent(report["clean"]), *robust, worst])
    return cells


def _worst_cases(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Over which attacks the worst case of each row is; one line if they are the same."""
    over = {row["run"]: ", ".join(_over(row["report"])) for row in rows}
    if len(set(over.values())) == 1:
        over = {"": next(iter(over.values()))}
    return [f"{run}: worst case over {o}".lstrip(": ") for run, o in over.items() if o]


def _over(report: Mapping[str, Any]) -> list[str]:
    return report.get("worst_case_over", list(report["robust"]))


def _survivors(row: Mapping[str, Any]) -> list[str]:
    """Which part of the successful images of a row are still that after rounding."""
    by_levels: dict[int, list[str]] = {}
    for name, rounded in row["report"].get("rounded", {}).items():
        by_levels.setdefault(rounded["levels"], []).append(f"{name} {percent(rounded['survive'])}")
    return [
        f"{row['run']}: % of successes that survive rounding to {levels} levels: {', '.join(found)}"
        for levels, found in by_levels.items()
    ]


def _calls_an_image(row: Mapping[str, Any]) -> list[str]:
    """What each attack of a row took, where it says so; reports of older versions have no n."""
    report, found = row["report"], []
    for name, stages in report.get("stages", {}).items():
        forwards, backwards = calls_an_image(stages, report.get("n", 0))
        if forwards is not None and backwards is not None:
            found.append(f"{name} {forwards:.0f} forward {backwards:.0f} backward")
    return [f"{row['run']}: model calls an image: {', '.join(found)}"] if found else []


@checked(host=True)
def calls_an_image(
    stages: Sequence[Mapping[str, Any]], n: int
) -> tuple[float | None, float | None]:
    """The forward and backward passes of an attack, divided by the number of evaluated images.

    Args:
      stages: the rows of the attack in a report's 'stages'.
      n: the report's 'n'.

    Returns:
      (forwards, backwards), each None where a stage does not say.

    >>> stages = [{"forwards": 40, "backwards": 20}, {"forwards": 60, "backwards": 0}]
    >>> rj.report.calls_an_image(stages, n=10)
    (10.0, 2.0)
    """
    if n < 1:
        return None, None
    totals = ([row[kind] for row in stages] for kind in ("forwards", "backwards"))
    forwards, backwards = (None if min(t, default=0) < 0 else sum(t) / n for t in totals)
    return forwards, backwards


@checked(host=True)
def stage_table(stages: Sequence[Mapping[str, Any]], markdown: bool = False) -> str:
    """The results of an ensemble's stages, in order; the inner stages of a stage share a row.

    Rank 2 is a stage towards the second most likely wrong class; stages of one name are numbered.

    Args:
      stages: the rows of one attack in a report's 'stages'.
      markdown: a Markdown table; otherwise plain columns.

    >>> apgd = {"attack": {"type": "APGD", "fields": {}}, "path": [0], "attacked": 100}
    >>> apgd |= {"accuracy": 0.62, "stderr": 0.05}
    >>> apgd |= {"forwards": 4200, "backwards": 4100, "seconds": 2.5}
    >>> print(rj.report.stage_table([apgd]))
    stage  attacked    accuracy  forwards  backwards  seconds
    -----  --------  ----------  --------  ---------  -------
    APGD        100  62.0 ± 5.0      4200       4100      2.5
    """
    return align(stage_cells(stages), numbers_from=1, markdown=markdown)


def stage_cells(stages: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The header and the lines of `stage_table`."""
    cells = []
    for _, group in itertools.groupby(stages, lambda row: row["path"][:1]):
        rows = list(group)
        calls = [_calls([row[kind] for row in rows]) for kind in ("forwards", "backwards")]
        accuracy = percent(rows[-1]["accuracy"], rows[-1]["stderr"])
        seconds = f"{sum(row['seconds'] for row in rows):.1f}"
        name = _stage_name([row["attack"] for row in rows])
        cells.append([name, str(rows[0]["attacked"]), accuracy, *calls, seconds])
    names = [name for name, *_ in cells]
    for i, row in enumerate(cells):
        if names.count(names[i]) > 1:
            row[0] += f", run {names[: i + 1].count(names[i])}"
    return [["stage", "attacked", "accuracy", "forwards", "backwards", "seconds"], *cells]


@checked(host=True)
def transfer_table(found: Mapping[str, Any], markdown: bool = False) -> str:
    """Success rates of transferred images: a row for each source model, a column for each target.

    Args:
      found: `evaluation.Transfer.to_json()`.
      markdown: a Markdown table; otherwise plain columns.

    >>> rates = {"cnn": {"value": 0.97, "stderr": 0.01}, "vit": {"value": 0.21, "stderr": 0.02}}
    >>> print(rj.report.transfer_table({"success": {"cnn": rates}}))
    crafted on         cnn         vit
    ----------  ----------  ----------
    cnn         97.0 ± 1.0  21.0 ± 2.0
    """
    check_content("found", found, {"success": Mapping})
    matrix = found["success"]
    for source, row in matrix.items():
        rates = {name: {"value": MAYBE, "stderr": MAYBE} for name in next(iter(matrix.values()))}
        check_content(f"found: {source}", row, rates)
    targets = list(next(iter(matrix.values())))
    cells = [["crafted on", *targets]]
    for source, row in matrix.items():
        rates = [percent(row[target]["value"], row[target]["stderr"]) for target in targets]
        cells.append([source, *rates])
    return align(cells, numbers_from=1, markdown=markdown)


@checked(host=True)
def detection_table(found: Mapping[str, Any], markdown: bool = False) -> str:
    """AUC / accepted and wrong, in percent: a row for each detector, a column for each attack.

    Args:
      found: `evaluation.DetectionReport.to_json()`.
      markdown: a Markdown table; otherwise plain columns.

    >>> row = {"auc": 0.93, "accepted_clean": 0.95, "accepted_wrong": 0.12}
    >>> print(rj.report.detection_table({"found": {"k-density": {"pgd-10": row}}}))
    detector   clean accepted       pgd-10
    ---------  --------------  -----------
    k-density            95.0  93.0 / 12.0
    """
    check_content("found", found, {"found": Mapping})
    rows = found["found"]
    attacks = list(next(iter(rows.values())))
    cells = [["detector", "clean accepted", *attacks]]
    for detector, row in rows.items():
        clean = next(iter(row.values()))["accepted_clean"]
        both = [f"{percent(e['auc'])} / {percent(e['accepted_wrong'])}" for e in row.values()]
        cells.append([detector, percent(clean), *both])
    return align(cells, numbers_from=1, markdown=markdown)


def _calls(counts: Sequence[int]) -> str:
    """The sum of the counts; "-" if an attack does not count (-1)."""
    return "-" if min(counts) < 0 else str(sum(counts))


def _stage_name(encoded: Sequence[Any]) -> str:
    """The type of the first attack, its loss, the targets other than the label, and the number."""
    first, *others = encoded
    if not isinstance(first, Mapping):
        return str(first)
    loss = first["fields"].get("loss")
    if isinstance(loss, Mapping):
        loss = " ".join([loss["type"], *(f"{number:g}" for number in loss["fields"].values())])
    ranks = [_rank(attack) for attack in encoded]
    target = (first["fields"].get("target") or {}).get("type")
    target = None if target == "TrueLabel" else target
    if others and None not in ranks and len(set(ranks)) == len(ranks):
        target, others = f"ranks {ranks[0]:g} to {ranks[-1]:g}", []
    elif ranks[0] is not None:
        target = f"rank {ranks[0]:g}"
    words = [first["type"], loss, target, f"x{len(encoded)}" if others else None]
    return " ".join(word for word in words if word)


def _rank(encoded: Any) -> float | None:
    """Which of the most likely wrong classes an attack goes to, if it goes to one."""
    fields = encoded["fields"] if isinstance(encoded, Mapping) else {}
    rank = ((fields.get("target") or {}).get("fields") or {}).get("rank")
    return rank if isinstance(rank, int | float) else None
