"""The frame of benchmarks that count what goes wrong, now and in a checkout of an older version."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robustjax import files, report
from robustjax.report.provenance import commit

sys.path.append(str(Path(__file__).parents[1]))
import origins

ROOT = Path(__file__).parents[2]


def parser(description: str, count: int) -> argparse.ArgumentParser:
    """The flags every one of them has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--count", type=int, default=count)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--before", type=Path, help="a checkout of an older version")
    made.add_argument("--out", type=Path, help="where to write the JSON")
    origins.add_flag(made)
    return made


def alone(script: str, checkout: Path, *words: str) -> Any:
    """The JSON that a script prints with --alone, run with the package of a checkout."""
    env = os.environ | {"PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, script, "--alone", *words]
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def compare(options: argparse.Namespace, counts: Callable[[Path], dict[str, Any]]) -> None:
    """Print `counts(checkout)` of both, and write them where --out says."""
    began = time.time()
    origins.check(options.out, options.dirty)
    checkouts = {"now": ROOT} | ({"before": options.before} if options.before else {})
    found = {name: counts(checkout) for name, checkout in checkouts.items()}
    print(json.dumps(found, indent=2))
    if options.out:
        if options.before:
            found["before"]["commit"] = commit(options.before / "robustjax" / "__init__.py")
        origin = report.provenance(report.command_line(), options.seed, began)
        files.write_json(options.out, found | {"count": options.count, "provenance": origin})
