"""Run an experiment's commands and keep what they left: used by every experiment file.

A run that was interrupted goes on where it was; one that is complete is evaluated again only.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from robustjax import cli, files

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


def short(data: str) -> str:
    """A data set's name for files and tables: of `arrays:DIR` the folder's."""
    return data.rstrip("/").split("/")[-1].removeprefix("arrays:")


def reproduce(rows: dict[str, tuple[str, str]], options: argparse.Namespace) -> None:
    """Train and evaluate the rows, name -> (flags of train, flags of evaluate); keep results."""
    where = ["--data-dir", options.data_dir] if options.data_dir else []
    for name, (train, evaluate) in rows.items():
        if options.only in (None, name):
            run = options.runs / name
            cli.main(["train", *train.split(), "--out", str(run), "--resume", *where])
            cli.main(["evaluate", str(run), *evaluate.split(), *where])
            keep(run)


def keep(run: Path) -> None:
    """Put a run's configuration, training record and report into one results file."""
    parts = {part: json.loads((run / f"{part}.json").read_text()) for part in PARTS}
    files.write_json(RESULTS / f"{run.name}.json", parts)


PARTS = ("config", "training", "report")
