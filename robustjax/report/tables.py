"""Run directories -> one table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustjax.files import check_keys, read_json

CONFIG = ("method", "data", "model", "threat")
REPORT = ("clean", "robust", "worst_case", "stderr", "warnings")


def read_run(path: str | Path) -> dict[str, Any]:
    """A run directory, or a results file with the same content, as one dictionary.

    Args:
      path: a folder with config.json and report.json, or a JSON file {"config": .., "report": ..}.

    Returns:
      run, method, data, model, threat, eps and report.

    Raises:
      FileNotFoundError: a file is missing; the message has the command that makes it.
      ValueError: a file is torn or is not what robustjax writes.
    """
    path = Path(path)
    if path.is_file():
        whole = read_json(path)
        check_keys(path, whole, ("config", "report"))
        config, report = whole["config"], whole["report"]
    else:
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path} is not a run directory: it has no config.json")
        if not (path / "report.json").is_file():
            raise FileNotFoundError(
                f"{path} has no report.json yet; run: robustjax evaluate {path}"
            )
        config, report = read_json(path / "config.json"), read_json(path / "report.json")
    check_keys(path if path.is_file() else path / "config.json", config, CONFIG)
    check_keys(path if path.is_file() else path / "report.json", report, REPORT)
    threat = report.get("threat") or config["threat"]
    return {
        "run": path.stem if path.is_file() else path.name,
        "method": _method(config["method"]),
        "data": config["data"]["name"],
        "model": config["model"]["name"],
        "threat": threat["type"],
        "eps": threat["fields"]["eps"],
        "report": report,
    }


def table(runs: Sequence[str | Path], markdown: bool = False) -> str:
    """One aligned table of several runs, then what is missing and what to distrust, a line each.

    Accuracies are in percent. Every attack that some run was evaluated under has a column, "-"
    where a run was not. The worst case (an example counts if it withstands all attacks) comes with
    its standard error.

    Args:
      runs: what `read_run` reads; one without a report is named with the command that makes it.
      markdown: a Markdown table; otherwise plain columns.

    Raises:
      FileNotFoundError: none of them has a report.
    """
    rows, notes = [], []
    for run in runs:
        try:
            rows.append(read_run(run))
        except FileNotFoundError as error:
            notes.append(str(error))
    if notes and not rows:
        raise FileNotFoundError("; ".join(notes))
    attacks = dict.fromkeys(name for row in rows for name in row["report"]["robust"])
    cells = [["run", "method", "data", "model", "threat", "clean", *attacks, "worst case"]]
    for row in rows:
        report = row["report"]
        robust = [_percent(report["robust"].get(name)) for name in attacks]
        worst = _percent(report["worst_case"], report["stderr"]["worst_case"])
        threat = f"{row['threat']} {format_eps(row['eps'])}"
        about = [row["run"], row["method"], row["data"], row["model"], threat]
        cells.append([*about, _percent(report["clean"]), *robust, worst])
        notes += [f"warning: {row['run']}: {text}" for text in report["warnings"]]
    aligned = [align(cells, numbers_from=5, markdown=markdown)] if rows else []
    return "\n".join(aligned + notes)


def stage_table(stages: Sequence[Mapping[str, Any]], markdown: bool = False) -> str:
    """What the stages of an ensemble did, in order; the inner stages of a stage share a row.

    Args:
      stages: the rows of one attack in a report's 'stages'.
      markdown: a Markdown table; otherwise plain columns.
    """
    cells = [["stage", "attacked", "accuracy", "forwards", "backwards", "seconds"]]
    for _, group in itertools.groupby(stages, lambda row: row["path"][:1]):
        rows = list(group)
        calls = [_calls([row[kind] for row in rows]) for kind in ("forwards", "backwards")]
        accuracy = _percent(rows[-1]["accuracy"], rows[-1]["stderr"])
        seconds = f"{sum(row['seconds'] for row in rows):.1f}"
        name = _stage_name(rows[0]["attack"], len(rows))
        cells.append([name, str(rows[0]["attacked"]), accuracy, *calls, seconds])
    return align(cells, numbers_from=1, markdown=markdown)


def transfer_table(found: Mapping[str, Any], markdown: bool = False) -> str:
    """Success rates: a row for each model that images were crafted on, a column for each judge.

    Args:
      found: `evaluation.Transfer.to_json()`.
      markdown: a Markdown table; otherwise plain columns.
    """
    matrix = found["success"]
    targets = list(next(iter(matrix.values())))
    cells = [["crafted on", *targets]]
    for source, row in matrix.items():
        rates = [_percent(row[target]["value"], row[target]["stderr"]) for target in targets]
        cells.append([source, *rates])
    return align(cells, numbers_from=1, markdown=markdown)


def detection_table(found: Mapping[str, Any], markdown: bool = False) -> str:
    """AUC / accepted and wrong in percent: a row for each detector, a column for each attack.

    Args:
      found: `evaluation.DetectionReport.to_json()`.
      markdown: a Markdown table; otherwise plain columns.
    """
    rows = found["found"]
    attacks = list(next(iter(rows.values())))
    cells = [["detector", "clean accepted", *attacks]]
    for detector, row in rows.items():
        clean = next(iter(row.values()))["accepted_clean"]
        both = [f"{_percent(e['auc'])} / {_percent(e['accepted_wrong'])}" for e in row.values()]
        cells.append([detector, _percent(clean), *both])
    return align(cells, numbers_from=1, markdown=markdown)


def _calls(counts: Sequence[int]) -> str:
    """Their sum; "-" where an attack does not say."""
    return "-" if min(counts) < 0 else str(sum(counts))


def _stage_name(encoded: Any, count: int) -> str:
    """The type, its loss and its label, where it has them; and how many where there are several."""
    if not isinstance(encoded, Mapping):
        return str(encoded)
    fields = encoded["fields"]
    loss, label = fields.get("loss"), fields.get("label")
    if isinstance(loss, Mapping):
        loss = " ".join([loss["type"], *(f"{number:g}" for number in loss["fields"].values())])
    label = None if label == "true" else label
    words = [encoded["type"], loss, label, f"x{count}" if count > 1 else None]
    return " ".join(word for word in words if word)


def format_eps(eps: float) -> str:
    """8/255 where it is one, else three digits."""
    if not eps < 0.2:  # inf too
        return f"{eps:.3g}"
    levels = eps * 255
    whole = round(levels)
    return f"{whole}/255" if whole and abs(levels - whole) < 1e-3 else f"{eps:.3g}"


def _method(encoded: Mapping[str, Any]) -> str:
    """AWP(TRADES) for a wrapper, the class name otherwise."""
    inner = encoded["fields"].get("inner")
    return f"{encoded['type']}({_method(inner)})" if inner else encoded["type"]


def _percent(value: float | None, error: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" ± {100 * error:.1f}" if error is not None else "")


def align(cells: Sequence[Sequence[str]], numbers_from: int, markdown: bool) -> str:
    """Columns of equal width under a header; from `numbers_from` on they are flush right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if not markdown and numbers_from >= len(widths):  # what is last may be long
        widths[-1] = len(cells[0][-1])

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if i >= numbers_from else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    colon = ":" if markdown else "-"
    rule = ["-" * (w - 1) + (colon if i >= numbers_from else "-") for i, w in enumerate(widths)]
    return "\n".join(map(line, [cells[0], rule, *cells[1:]]))
