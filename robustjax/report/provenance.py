"""The origin of a number: enough to reproduce it, and nothing about who produced it."""

from __future__ import annotations

import datetime
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from robustjax.checks import INF, checked
from robustjax.environment import devices, versions


@checked(host=True, started=(0, INF))
def provenance(command: str, seed: int, started: float) -> dict[str, Any]:
    """The origin of a result, for every report.json and results file.

    Args:
      command: as typed; paths that leave this folder are cut to their last part.
      seed: the run's seed.
      started: `time.time()` at the start of the run.

    Returns:
      command, seed, commit (None outside a git checkout; "-dirty" if code has changed since),
      device, versions, wall_time_s and date (UTC). No path or host name.

    >>> import time
    >>> origin = rj.report.provenance("robustjax evaluate /home/me/runs/trades", 0, time.time())
    >>> origin["command"], sorted(origin["versions"])[:3]
    ('robustjax evaluate trades', ['flax', 'jax', 'jaxlib'])
    """
    return {
        "command": _without_folders(command),
        "seed": seed,
        "commit": commit(Path(__file__)),
        "device": _device(),
        "versions": versions(),
        "wall_time_s": round(time.time() - started, 1),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def command_line() -> str:
    """The running command, as typed; `python -m robustjax` becomes robustjax.

    >>> import sys
    >>> sys.argv, before = ["/usr/bin/robustjax", "train", "--eps", "8/255"], sys.argv
    >>> rj.report.command_line()
    'robustjax train --eps 8/255'
    >>> sys.argv = before
    """
    program = Path(sys.argv[0]).name
    return shlex.join(["robustjax" if program == "__main__.py" else program, *sys.argv[1:]])


def _without_folders(command: str) -> str:
    """Cut paths that leave this folder to their last part; fractions and paths inside it stay."""
    path = re.compile(r"(?<![\w.~/])(?:\.\.)?/(?:[^/]+/)*([^/]+)/?$")
    return shlex.join(path.sub(r"\1", word) for word in shlex.split(command))


def commit(file: Path) -> str | None:
    """The commit of a file's checkout, with "-dirty" if code has changed; None if it is untracked.

    Code means Python files: an experiment changes its results file with each row. An installed
    package may lie inside an unrelated checkout, so only tracked files count.
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
    found = devices()
    cores = f" ({os.cpu_count()} cores)" if found["platform"] == "cpu" else ""
    return f"{found['count']} x {found['kind']}{cores}"
