"""What a run leaves in its folder but for checkpoints; process 0 writes, all processes look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from robustjax import files, models, parallel
from robustjax.checkpoint import refuse_foreign
from robustjax.training.state import TrainState


def open_run(out: Path, identity: dict[str, Any], resume: bool) -> bool:
    """Check that `out` is free, or holds this very run; returns whether it is free."""
    path = out / "config.json"
    new = not path.exists()
    if not (new or resume):
        raise ValueError(f"{out} holds a run already; resume it, or choose another folder")
    if not new:
        refuse_foreign(out, files.read_json(path), identity)
    out.mkdir(parents=True, exist_ok=True)
    parallel.barrier("every process has looked")
    return new


def write_config(out: Path, identity: dict[str, Any]) -> None:
    """Write config.json."""
    if jax.process_index() == 0:
        files.write_json(out / "config.json", identity)


def write_metrics(out: Path, row: Mapping[str, Any]) -> None:
    """Append one line to metrics.jsonl."""
    if jax.process_index() == 0:
        with (out / "metrics.jsonl").open("a") as file:
            file.write(files.to_json(row) + "\n")


def keep_metrics(out: Path, step: int) -> float:
    """Drop the lines of metrics.jsonl later than `step`: the resumed run writes them again.

    Returns the seconds that the run had taken by the last one it keeps.
    """
    path = out / "metrics.jsonl"
    if jax.process_index() or not path.exists():
        return 0.0
    rows = [row for row in files.read_metrics(path) if row["step"] <= step]
    with files.replacing(path) as file:
        file.write("".join(files.to_json(row) + "\n" for row in rows).encode())
    return rows[-1].get("seconds", 0.0) if rows else 0.0


def save_weights(path: Path, state: TrainState) -> None:
    """Write the evaluated weights for NumPy to read."""
    if jax.process_index() == 0:
        models.save_weights(path, jax.tree.map(lambda a: a.addressable_data(0), state.variables))
