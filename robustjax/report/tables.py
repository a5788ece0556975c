"""Run directories -> one table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def read_run(path: str | Path) -> dict[str, Any]:
    """A run directory, or a results file with the same content, as a row for `table`.

    Args:
      path: a folder with config.json and report.json, or a JSON file {"config": .., "report": ..}.

    Returns:
      run, method, data, model, threat, eps and report.

    Raises:
      FileNotFoundError: a file is missing; the message has the command that makes it.
    """
    path = Path(path)
    if path.is_file():
        whole = _read(path)
        config, report = whole["config"], whole["report"]
    else:
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path} is not a run directory: it has no config.json")
        if not (path / "report.json").is_file():
            raise FileNotFoundError(
                f"{path} has no report.json yet; run: robustjax evaluate {path}"
            )
        config, report = _read(path / "config.json"), _read(path / "report.json")
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


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """One aligned Markdown table of rows as `read_run` makes them; accuracies in percent.

    Every attack that some run was evaluated under has a column, "-" where a run was not. The worst
    case, an example counted only if it withstands all attacks, comes with its standard error.
    """
    rows = list(rows)
    attacks = list(dict.fromkeys(name for row in rows for name in row["report"]["robust"]))
    header = ["run", "method", "data", "model", "threat", "clean", *attacks, "worst case"]
    cells = []
    for row in rows:
        report = row["report"]
        robust = [_percent(report["robust"].get(name)) for name in attacks]
        worst = _percent(report["worst_case"], report["stderr"]["worst_case"])
        threat = f"{row['threat']} {format_eps(row['eps'])}"
        about = [row["run"], row["method"], row["data"], row["model"], threat]
        cells.append([*about, _percent(report["clean"]), *robust, worst])
    return _align(header, cells, numbers_from=5)


def summary(runs: Sequence[str | Path]) -> str:
    """The table of several runs, then a line for each run without a report and each warning."""
    rows, notes = [], []
    for run in runs:
        try:
            rows.append(read_run(run))
        except FileNotFoundError as error:
            notes.append(str(error))
    notes += [
        f"warning: {row['run']}: {text}" for row in rows for text in row["report"]["warnings"]
    ]
    return "\n".join([table(rows)] * bool(rows) + notes)


def format_eps(eps: float) -> str:
    """8/255 where it is one, else three digits."""
    levels = eps * 255
    whole = round(levels)
    return f"{whole}/255" if whole and abs(levels - whole) < 1e-3 and eps < 0.2 else f"{eps:.3g}"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _method(encoded: Mapping[str, Any]) -> str:
    """AWP(TRADES) for a wrapper, the class name otherwise."""
    inner = encoded["fields"].get("inner")
    return f"{encoded['type']}({_method(inner)})" if inner else encoded["type"]


def _percent(value: float | None, error: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" ± {100 * error:.1f}" if error is not None else "")


def _align(header: list[str], rows: list[list[str]], numbers_from: int) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    flush_right = [i >= numbers_from for i in range(len(header))]

    def line(cells: Iterable[str]) -> str:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, flush_right, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = ("-" * (w - 1) + (":" if r else "-") for w, r in zip(widths, flush_right, strict=True))
    return "\n".join([line(header), line(rule), *map(line, rows)])
