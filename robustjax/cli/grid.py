"""The file of a sweep: what its runs share, what they vary, and each run's command lines."""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PARTS = {"out", "train", "grid", "evaluate", "launch"}
OWN = {"out": "out = DIR at the top of the file", "resume": "nothing: every run resumes"}
"""Flags that a sweep sets itself -> what to write instead."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
      name: of the run, unique in the sweep.
      labels: axis of the grid -> what the run has there, as text.
      train: the words after `robustjax train`, without --out and --resume.
      evaluate: the words after `robustjax evaluate RUN`; None: it is not evaluated.
    """

    name: str
    labels: Mapping[str, str]
    train: tuple[str, ...]
    evaluate: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Grid:
    """A sweep: its folder, its runs, and the settings of its launcher."""

    out: Path
    cells: tuple[Cell, ...]
    launch: Mapping[str, Any]


def read_grid(path: Path) -> Grid:
    """The sweep of a TOML file.

    The file has a table `train` (flags that all runs share), a table `grid` (flag -> list of
    values; every combination is a run; a value may be a table of several flags, which may give it a
    `name`), and may have `evaluate` (flags of `robustjax evaluate`), `launch` and `out`.

    Raises:
      ValueError: the file is not TOML, or not such a sweep.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    if unknown := content.keys() - PARTS:
        raise ValueError(f"{path}: unknown {', '.join(sorted(unknown))}; known: {known(PARTS)}")
    for part in PARTS - {"out"}:
        if not isinstance(content.get(part, {}), dict):
            raise ValueError(f"{path}: {part} must be a table: [{part}]")
    out = content.get("out", f"runs/{path.stem}")
    if not isinstance(out, str) or not out:
        raise ValueError(f"{path}: out must be the folder of the runs, got {out!r}")
    shared, evaluate = content.get("train", {}), content.get("evaluate")
    try:
        options = None if evaluate is None else tuple(words_of(evaluate))
        cells = tuple(cell(shared, point, options) for point in points(content.get("grid", {})))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    twice = {c.name for c in cells if sum(c.name == other.name for other in cells) > 1}
    if twice:
        raise ValueError(f"{path}: two runs have the same name: {known(twice)}")
    return Grid(Path(out), cells, content.get("launch", {}))


def points(axes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of one value of each axis; the last axis varies fastest."""
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"grid.{name} must be a list of values, such as [0, 1]")
    return [dict(zip(axes, choice, strict=True)) for choice in itertools.product(*axes.values())]


def cell(shared: Mapping[str, Any], point: Mapping[str, Any], evaluate: Any) -> Cell:
    """The run at a point of the grid; a flag that is set there wins over the shared one."""
    flags, labels = dict(shared), {}
    for axis, value in point.items():
        labels[axis] = label(value)
        own = {k: v for k, v in value.items() if k != "name"} if isinstance(value, dict) else None
        flags |= {axis: value} if own is None else own
    method = flags.pop("method", None)
    if not isinstance(method, str):
        raise ValueError("name the method: method = 'pgd-at' in [train], or a list in [grid]")
    parts = [v if axis == "method" else f"{axis}={v}" for axis, v in labels.items()]
    name = "-".join(parts).replace("/", "_").replace(" ", "") or method
    return Cell(name, labels, (method, *words_of(flags)), evaluate)


def label(value: Any) -> str:
    """A value of the grid as text: a table's name, or its values."""
    if isinstance(value, dict):
        return str(value.get("name", "-".join(map(label, value.values()))))
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def words_of(flags: Mapping[str, Any], prefix: str = "--") -> list[str]:
    """Flags as words of a command line: {'lr': 0.1, 'normalize': False} -> --lr 0.1 ..."""
    words: list[str] = []
    for name, value in flags.items():
        flag = prefix + name.replace("_", "-")
        if flag[2:] in OWN:
            raise ValueError(f"a sweep sets {flag} itself; write {OWN[flag[2:]]}")
        if isinstance(value, dict):
            words += words_of(value, f"{flag}.")
        elif isinstance(value, bool):
            head, dot, last = flag[2:].rpartition(".")
            words.append(flag if value else f"--{head}{dot}no-{last}")
        else:
            values: Sequence[Any] = value if isinstance(value, list) else [value]
            words += [flag, *map(str, values)]
    return words


def known(names: Any) -> str:
    """Names in order, for a message."""
    return ", ".join(sorted(names))
