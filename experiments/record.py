"""Run an experiment's commands and keep what they left: used by every experiment file.

A run that was interrupted goes on where it was; one that is complete is evaluated again only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from robustjax import cli, files, parallel, report

RESULTS = Path(__file__).parent / "results"


def parser(description: str) -> argparse.ArgumentParser:
    """The flags every experiment has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data-dir", help="the folder of prepared TFDS sets")
    made.add_argument("--runs", type=Path, default=Path("runs"), help="where runs go")
    made.add_argument("--only", help="run only the row of this name")
    return made


def scaled(description: str, scales: Iterable[str]) -> argparse.ArgumentParser:
    """Those, and the flags of an experiment that has scales and data sets: see `chosen`."""
    made = parser(description)
    made.add_argument("--scale", choices=list(scales), default="smoke")
    made.add_argument(
        "--data", help="cifar10, mnist, digits or arrays:DIR; smoke takes digits by default"
    )
    return made


def chosen(known: argparse.ArgumentParser, batch_size: int = 16) -> argparse.Namespace:
    """The flags as typed, with the data set that the scale takes by default.

    Every core is a device from here on, as far as this batch size, or the usual ones, divide over
    them: once JAX has been asked anything it is too late.
    """
    options = known.parse_args()
    parallel.use_all_cores(batch_size)
    options.data = options.data or ("digits" if options.scale == "smoke" else "cifar10")
    return options


def wanted(options: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """The rows to make: all of these, or the one of --only."""
    if options.only is None:
        return list(names)
    if options.only not in names:
        raise SystemExit(f"there is no row {options.only!r}; choose one of {', '.join(names)}")
    return [options.only]


def slug(data: str) -> str:
    """A data set's name as part of a file's: of 'arrays:DIR' the last folder."""
    return Path(data.removeprefix("arrays:")).name


def place(options: argparse.Namespace) -> Path:
    """Where results go; those of a smoke test are none."""
    return options.runs if options.scale == "smoke" else RESULTS


def trained(run: Path, words: Iterable[str], options: argparse.Namespace) -> Path:
    """The run directory, after `robustjax train` with these words; a complete one is taken."""
    where = ["--data-dir", options.data_dir] if options.data_dir else []
    if not (run / "training.json").exists():
        words = [*words, "--data", options.data, "--out", str(run), "--resume"]
        cli.main(["train", *words, *where])
    return run


def evaluated(run: Path, words: Iterable[str], options: argparse.Namespace) -> dict[str, Any]:
    """The run's report, after `robustjax evaluate` with these words; one that is there is taken."""
    where = ["--data-dir", options.data_dir] if options.data_dir else []
    if not (run / "report.json").exists():
        cli.main(["evaluate", str(run), *words, *where])
    return files.read_json(run / "report.json")


def once(path: Path, measure: Callable[[], Any]) -> Any:
    """What `measure` returns, kept in a JSON file; the file's content if it is there."""
    if not path.exists():
        files.write_json(path, measure())
    return files.read_json(path)


def added(path: Path, part: str, name: str, made: Any, started: float) -> dict[str, Any]:
    """The table `part` of a results file, with this row in it: others may have written others."""
    rows = files.read_json(path)[part] if path.exists() else {}
    rows[name] = made
    origin = report.provenance(report.command_line(), 0, started)
    files.write_json(path, {"provenance": origin, part: rows})
    return rows


def reproduce(rows: dict[str, tuple[str, str]], options: argparse.Namespace) -> None:
    """Train and evaluate the rows, name -> (flags of train, flags of evaluate); keep results."""
    where = ["--data-dir", options.data_dir] if options.data_dir else []
    for name in wanted(options, rows):
        train, evaluate = rows[name]
        run = options.runs / name
        cli.main(["train", *train.split(), "--out", str(run), "--resume", *where])
        cli.main(["evaluate", str(run), *evaluate.split(), *where])
        keep(run)


def keep(run: Path) -> None:
    """Put a run's configuration, training record and report into one results file."""
    parts = {part: files.read_json(run / f"{part}.json") for part in PARTS}
    files.write_json(RESULTS / f"{run.name}.json", parts)


PARTS = ("config", "training", "report")
