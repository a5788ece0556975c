"""Where the metrics of a run go besides metrics.jsonl."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from typing_extensions import override

from robustjax.training.event_file import EventFile
from robustjax.writing import append

Row = Mapping[str, Any]
"""A line of metrics.jsonl: step, epoch, seconds, split ('train' or 'validation') and numbers."""
ABOUT = ("step", "epoch", "seconds", "split")


@runtime_checkable
class Logger(Protocol):
    """Takes the rows of a run; `fit` calls it in process 0.

    >>> class Printer:
    ...     def open(self, out, config, rows): ...
    ...     def log(self, row):
    ...         print(row["step"], row["loss"])
    ...     def close(self): ...
    >>> isinstance(Printer(), rj.training.Logger)
    True
    """

    def open(self, out: Path, config: Mapping[str, Any], rows: Sequence[Row]) -> None:
        """Begin.

        Args:
          out: the run directory.
          config: what config.json holds.
          rows: of a run that is resumed, those up to where it resumes.
        """
        ...

    def log(self, row: Row) -> None:
        """Take the next row."""
        ...

    def close(self) -> None:
        """End, also after an error."""
        ...


class TensorBoard(Logger):
    """Event files in OUT/tensorboard/train and OUT/tensorboard/validation; needs no TensorFlow.

    Guarantees:
      A resumed run takes back what it had logged beyond the step that it resumes from.

    >>> logger = rj.training.TensorBoard()  # fit(..., loggers=[logger]); tensorboard --logdir runs
    """

    def __init__(self):
        self._files: dict[str, EventFile] = {}

    @override
    def open(self, out: Path, config: Mapping[str, Any], rows: Sequence[Row]) -> None:
        step = rows[-1]["step"] + 1 if rows else 0
        folder = out / "tensorboard"
        self._files = {split: EventFile(folder / split, step) for split in ("train", "validation")}

    @override
    def log(self, row: Row) -> None:
        self._files[row["split"]].add(row["step"], numbers(row) | {"epoch": row["epoch"]})

    @override
    def close(self) -> None:
        pass


class CSV(Logger):
    """OUT/metrics_train.csv and OUT/metrics_validation.csv, with a line of names.

    >>> logger = rj.training.CSV()  # fit(..., loggers=[logger])
    """

    @override
    def open(self, out: Path, config: Mapping[str, Any], rows: Sequence[Row]) -> None:
        self._out, self._names = out, {}
        for split in ("train", "validation"):
            self._path(split).unlink(missing_ok=True)
        for row in rows:
            self.log(row)

    @override
    def log(self, row: Row) -> None:
        path, values = self._path(row["split"]), {k: v for k, v in row.items() if k != "split"}
        text = io.StringIO()
        names = self._names.setdefault(row["split"], list(values))
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        if not path.exists():
            writer.writeheader()
        writer.writerow(values)
        append(path, text.getvalue())

    @override
    def close(self) -> None:
        pass

    def _path(self, split: str) -> Path:
        return self._out / f"metrics_{split}.csv"


class WandB(Logger):
    """A run of Weights & Biases (pip install wandb), which a resumed run continues.

    Args:
      project: where it belongs.

    Raises:
      ModuleNotFoundError: wandb is not installed.

    >>> logger = rj.training.WandB("my-project")  # doctest: +SKIP
    """

    def __init__(self, project: str = "robustjax"):
        try:
            self._init = importlib.import_module("wandb").init
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "logging to Weights & Biases needs wandb: pip install wandb", name="wandb"
            ) from error
        self._project = project

    @override
    def open(self, out: Path, config: Mapping[str, Any], rows: Sequence[Row]) -> None:
        place = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
        self._run = self._init(
            project=self._project,
            name=out.name,
            id=place,
            resume="allow",
            dir=str(out),
            config=dict(config),
        )

    @override
    def log(self, row: Row) -> None:
        found = {f"{row['split']}/{name}": value for name, value in numbers(row).items()}
        self._run.log(found | {"epoch": row["epoch"]}, step=row["step"])

    @override
    def close(self) -> None:
        self._run.finish()


LOGGERS = {"tensorboard": TensorBoard, "csv": CSV, "wandb": WandB}
"""Loggers by their names on the command line."""


def numbers(row: Row) -> dict[str, float]:
    """The metrics of a row.

    >>> from robustjax.training.loggers import numbers
    >>> numbers({"step": 1, "epoch": 0.5, "seconds": 2.0, "split": "train", "loss": 0.25})
    {'loss': 0.25}
    """
    return {name: value for name, value in row.items() if name not in ABOUT}
