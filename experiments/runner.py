"""What every experiment shares: its flags, its runs and its results files.

An interrupted run resumes; a complete one is only evaluated.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import figures
import numpy as np
import origins
from origins import RESULTS

from robustjax import cli, files, parallel, report
from robustjax.writing import replacing

LARGEST = 200_000
"""Bytes of a results file."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of an experiment is run: flags of trainings and evaluations, and how many seeds."""

    train: str
    evaluate: str
    seeds: int


def parser(description: str) -> argparse.ArgumentParser:
    """The flags every experiment has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data-dir", help="the folder of prepared TFDS sets")
    made.add_argument("--runs", type=Path, default=Path("runs"), help="where runs go")
    made.add_argument("--only", help="run only the row with this name")
    origins.add_flag(made)
    return made


def scaled(description: str, scales: Iterable[str]) -> argparse.ArgumentParser:
    """The same, with the flags of an experiment that has scales and data sets: see `launch`."""
    made = parser(description)
    made.add_argument("--scale", choices=list(scales), default="smoke")
    made.add_argument(
        "--data", help="cifar10, mnist, digits or arrays:DIR; smoke takes digits by default"
    )
    return made


def launch(
    main: Callable[[argparse.Namespace], None],
    known: argparse.ArgumentParser,
    name: str,
    draw: figures.Draw | None = None,
    batch_size: int = 16,
    sets: Mapping[str, str] = {},
) -> None:
    """Call `main` with the flags and the scale's data set; what is wrong with them is a sentence.

    Makes every core a device, as far as the batch size divides over them; call before JAX
    initialises.

    Args:
      main: gets the flags, and in `options.results` the path NAME_DATA_SCALE.json.
      known: of `scaled`.
      name: of the results.
      draw: their figure; --draw calls it in place of `main`.
      batch_size: what the devices have to divide.
      sets: scale -> data set; else digits at smoke scale and CIFAR-10 at the others.
    """
    if draw:
        figures.add_flag(known)
    options = known.parse_args()
    usual = "digits" if options.scale == "smoke" else "cifar10"
    options.data = options.data or sets.get(options.scale, usual)
    file = f"{name}_{slug(options.data)}_{options.scale}.json"
    options.results = destination(options) / file
    if draw and options.draw:
        figures.redraw(options.results, draw)
        return
    parallel.use_all_cores(batch_size)
    origins.check(destination(options), options.dirty)
    try:
        main(options)
    except (OSError, ValueError) as error:
        sys.exit(f"{known.prog}: {error}")


def wanted(options: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """The rows to make: all of these, or the one of --only, whatever its case."""
    if options.only is None:
        return list(names)
    known = {name.lower(): name for name in names}
    if options.only.lower() not in known:
        near = difflib.get_close_matches(options.only.lower(), known, 1)
        meant = f"did you mean {known[near[0]]!r}? " if near else ""
        rows = ", ".join(map(repr, known.values()))
        raise SystemExit(f"there is no row {options.only!r}; {meant}choose one of {rows}")
    return [known[options.only.lower()]]


def slug(data: str) -> str:
    """A data set's name as part of a file's: of 'arrays:DIR' the last folder."""
    return Path(data.removeprefix("arrays:")).name


def destination(options: argparse.Namespace) -> Path:
    """Where results go; a smoke test's stay with its runs."""
    return options.runs if options.scale == "smoke" else RESULTS


def merged(*flags: str) -> list[str]:
    """Words of a command line with each flag once: a later one takes an earlier one's place."""
    found: dict[str, list[str]] = {}
    for word in " ".join(flags).split():
        if word.startswith("--"):
            found[word] = values = []
        else:
            values.append(word)
    return [word for flag, values in found.items() for word in (flag, *values)]


def trained(run: Path, words: Iterable[str], options: argparse.Namespace) -> Path:
    """The run directory after `robustjax train` with these words; a complete run is reused."""
    where = ["--data-dir", options.data_dir] if options.data_dir else []
    if not (run / "training.json").exists():
        words = [*words, "--data", options.data, "--out", str(run), "--resume"]
        cli.main(["train", *words, *where])
    return run


def evaluated(run: Path, words: Iterable[str], options: argparse.Namespace) -> dict[str, Any]:
    """The run's report after `robustjax evaluate` with these words; an existing one is reused."""
    where = ["--data-dir", options.data_dir] if options.data_dir else []
    if not (run / "report.json").exists():
        cli.main(["evaluate", str(run), *words, *where])
    return files.read_json(run / "report.json")


def once(path: Path, measure: Callable[[], Any]) -> Any:
    """What `measure` returns, kept in a JSON file; an existing file's content is reused."""
    if not path.exists():
        files.write_json(path, measure())
    return files.read_json(path)


def added(path: Path, part: str, name: str, made: Any, started: float) -> dict[str, Any]:
    """Add a row to the table `part` of a results file, and return the table."""
    rows = files.read_json(path)[part] if path.exists() else {}
    rows[name] = made
    origin = report.provenance(report.command_line(), 0, started)
    write_result(path, {"provenance": origin, part: rows})
    return rows


def tabulate(
    options: argparse.Namespace,
    rows: Iterable[str],
    make: Callable[[str], list[dict[str, Any]]],
    lines: Callable[[dict[str, list[dict[str, Any]]]], list[str]],
    draw: figures.Draw | None = None,
) -> None:
    """Make the rows that are wanted; the results and their figure are written after each.

    Args:
      options: of `launch`.
      rows: all of them.
      make: a row's name -> what was measured with each seed.
      lines: the table in Markdown, which is printed at the end.
      draw: the figure, if there is one.
    """
    started, table = time.time(), {}
    for name in wanted(options, rows):
        table = added(options.results, "rows", name, make(name), started)
        if draw:
            figures.redraw(options.results, draw)
    print("\n".join(lines(table)))


def over_seeds(
    measure: Callable[[str, int, Any, argparse.Namespace], dict[str, Any]],
    scale: Any,
    options: argparse.Namespace,
) -> Callable[[str], list[dict[str, Any]]]:
    """For `tabulate`: a row's name -> what `measure` finds with each seed of the scale."""
    return lambda name: [measure(name, seed, scale, options) for seed in range(scale.seeds)]


def spread(values: Iterable[float], unit: float = 100, digits: int = 1) -> str:
    """The mean over seeds and their standard deviation; fractions in percent."""
    found = unit * np.array([*values])
    deviation = found.std(ddof=len(found) > 1)
    return f"{found.mean():.{digits}f} ± {deviation:.{digits}f}"


def write_result(path: Path, table: Any) -> None:
    """Write a results file of at most `LARGEST` bytes: a line for each row, without stages.

    The stages of a report, with each one's configuration, stay in the run's directory.
    """
    text = _lines(_without_stages(table), 3) + "\n"
    if len(text) > LARGEST:
        raise ValueError(f"{path} would take {len(text):,} bytes, more than {LARGEST:,}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode())


def _without_stages(table: Any) -> Any:
    if isinstance(table, dict):
        return {key: _without_stages(value) for key, value in table.items() if key != "stages"}
    return [_without_stages(value) for value in table] if isinstance(table, list) else table


def _lines(table: Any, depth: int, indent: str = "") -> str:
    """JSON whose outer `depth` levels are spread over lines."""
    if not depth or not isinstance(table, dict):
        return files.to_json(table)
    inner = f",\n{indent} ".join(
        f"{json.dumps(key)}: {_lines(value, depth - 1, indent + ' ')}"
        for key, value in table.items()
    )
    return f"{{\n{indent} {inner}\n{indent}}}"


def reproduce(rows: dict[str, tuple[str, str]], options: argparse.Namespace) -> None:
    """Train and evaluate the rows, name -> (flags of train, flags of evaluate); keep results."""
    where = ["--data-dir", options.data_dir] if options.data_dir else []
    origins.check(RESULTS, options.dirty)
    for name in wanted(options, rows):
        train, evaluate = rows[name]
        run = options.runs / name
        cli.main(["train", *train.split(), "--out", str(run), "--resume", *where])
        cli.main(["evaluate", str(run), *evaluate.split(), *where])
        keep(run)


def keep(run: Path) -> None:
    """Put a run's configuration, training record and report into one results file."""
    parts = {part: files.read_json(run / f"{part}.json") for part in PARTS}
    write_result(RESULTS / f"{run.name}.json", parts)


PARTS = ("config", "training", "report")
