"""Where a number comes from: enough to make it again, nothing about who made it."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("robustjax", "jax", "jaxlib", "flax", "optax", "numpy")


def provenance(command: str, seed: int, started: float) -> dict[str, Any]:
    """The origin of a result, for every report.json and results file.

    Args:
      command: as typed; paths that leave this folder are cut to their last part.
      seed: of the run.
      started: `time.time()` when the run began.

    Returns:
      command, seed, commit (None outside a git checkout; "-dirty" if code differs from it),
      device, versions, wall_time_s and date (UTC). No path or host name.
    """
    return {
        "command": _without_folders(command),
        "seed": seed,
        "commit": commit(Path(__file__)),
        "device": _device(),
        "versions": {name: _version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "wall_time_s": round(time.time() - started, 1),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def command_line() -> str:
    """The command that is running, as typed; `python -m robustjax.cli` is robustjax too."""
    program = Path(sys.argv[0]).name
    return shlex.join(["robustjax" if program == "__main__.py" else program, *sys.argv[1:]])


def _without_folders(command: str) -> str:
    """Cut paths that leave this folder to their last part; fractions and paths inside it stay."""
    path = re.compile(r"(?<![\w.~/])(?:\.\.)?/(?:[^/]+/)*([^/]+)/?$")
    return shlex.join(path.sub(r"\1", word) for word in shlex.split(command))


def commit(file: Path) -> str | None:
    """The commit a file is at, "-dirty" if its checkout's code is not; None if it is untracked.

    Code is Python files: an experiment's results, which it writes row by row, are none. An
    installed package may lie inside some checkout: only tracked files belong to one.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        result = subprocess.run(
            command, cwd=file.parent, capture_output=True, text=True, check=True
        )
        return result.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/*.py")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _device() -> str:
    devices = jax.devices()
    cores = f" ({os.cpu_count()} cores)" if devices[0].platform == "cpu" else ""
    return f"{len(devices)} x {devices[0].device_kind}{cores}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
