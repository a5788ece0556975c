"""Results files of rows, each with the commit and the compiler that made it; a row is made once."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from robustjax import files, report
from robustjax.environment import versions
from robustjax.report.provenance import commit

sys.path.append(str(Path(__file__).parents[1]))
import origins
from origins import RESULTS

__all__ = ["RESULTS", "add", "load", "parser", "start"]


def parser(description: str) -> argparse.ArgumentParser:
    """The flag that every script here has."""
    made = argparse.ArgumentParser(description=description.partition("\n")[0])
    origins.add_flag(made)
    return made


def start(path: Path, options: argparse.Namespace) -> None:
    """Refuse code that is in no commit; compile for TPUs, and run nothing on one."""
    origins.check(path, options.dirty)
    jax.config.update("jax_platforms", "cpu")


def load(path: Path) -> dict[str, Any]:
    """The rows that are there."""
    return files.read_json(path) if path.exists() else {}


def add(path: Path, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The row of a name; `measure` makes it unless it is there."""
    if name not in (rows := load(path)):
        began = time.time()
        row = measure() | {"compiling_seconds": round(time.time() - began, 1)}
        row["commit"] = commit(Path(report.__file__))
        row["versions"] = versions() | {"libtpu": metadata.version("libtpu")}
        rows = load(path) | {name: row}  # another process may have added some
        files.write_json(path, rows)
        print(f"{name}: {row}", flush=True)
    return rows[name]
