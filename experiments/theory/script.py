"""Run a script of this folder: measure, draw, and keep both in results/theory."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from robustjax import files, report

sys.path.append(str(Path(__file__).parents[1]))
import origins

RESULTS = origins.RESULTS / "theory"
SEED = 0


def run(path: str, about: str, main: Callable[[Path], dict[str, Any]]) -> None:
    """Call `main(folder for its figures)` and keep the numbers it returns, with their provenance.

    Args:
      path: the script's file.
      about: its docstring, which --help shows.
      main: measures and draws.
    """
    known = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    origins.add_flag(known)
    origins.check(RESULTS, known.parse_args().dirty)
    name, started = Path(path).stem, time.time()
    with threadpool_limits(1):  # small matrices: threads would only wait for each other
        numbers = main(RESULTS)
    origin = report.provenance(f"python experiments/theory/{name}.py", SEED, started)
    extra = ("scipy", "scikit-learn", "matplotlib", "pillow")
    origin["versions"] |= {package: metadata.version(package) for package in extra}
    files.write_json(RESULTS / f"{name}.json", {"numbers": numbers, "provenance": origin})
    print(f"{name}: {origin['wall_time_s']} s, in {RESULTS.name}/{name}.json and its figures")
