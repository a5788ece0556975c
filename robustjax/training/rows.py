"""The lines of metrics.jsonl: what a run measures, for files and loggers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from robustjax import files
from robustjax.training.loggers import Logger
from robustjax.warn import warn
from robustjax.writing import append, replacing

Log = Callable[[int, str, Mapping[str, Any]], None]
"""(step, 'train' or 'validation', numbers): writes a row."""


@contextlib.contextmanager
def rows(
    out: Path,
    loggers: Sequence[Logger],
    config: Mapping[str, Any],
    step: int,
    steps_per_epoch: int,
) -> Iterator[Log]:
    """Open metrics.jsonl and the loggers of a run, and close the loggers that were opened.

    Args:
      out: the run directory.
      loggers: process 0 calls them.
      config: what config.json holds.
      step: where the run begins or resumes; rows of later steps are dropped.
      steps_per_epoch: steps of an epoch.
    """
    begun = time.monotonic() - keep_metrics(out, step)
    own = loggers if jax.process_index() == 0 else ()

    def log(step: int, split: str, values: Mapping[str, Any]) -> None:
        seconds = round(time.monotonic() - begun, 2)
        row = {"step": step, "epoch": step / steps_per_epoch, "seconds": seconds}
        row |= {"split": split, **{k: float(v) for k, v in values.items()}}
        write_metrics(out, row)
        for logger in own:
            logger.log(row)

    with contextlib.ExitStack() as stack:
        metrics = out / "metrics.jsonl"
        before = files.read_metrics(metrics) if own and metrics.exists() else []
        for logger in own:
            logger.open(out, config, before)
            stack.callback(logger.close)
        yield log


def write_metrics(out: Path, row: Mapping[str, Any]) -> None:
    """Append one line to metrics.jsonl."""
    if jax.process_index() == 0:
        append(out / "metrics.jsonl", files.to_json(row) + "\n")


def keep_metrics(out: Path, step: int) -> float:
    """Drop the lines of metrics.jsonl later than `step`: the resumed run writes them again.

    Returns the seconds that the run had taken by the last one it keeps.
    """
    path = out / "metrics.jsonl"
    if jax.process_index() or not path.exists():
        return 0.0
    rows, bad = files.scan_metrics(path)
    if bad:
        warn(f"{path}: dropped {len(bad)} damaged lines, line {bad[0]} first")
    rows = [row for row in rows if row["step"] <= step]
    with replacing(path) as file:
        file.write("".join(files.to_json(row) + "\n" for row in rows).encode())
    return rows[-1].get("seconds", 0.0) if rows else 0.0
