"""Run a script of a folder of experiments: measure, draw, and keep both in results/FOLDER."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import origins
from threadpoolctl import threadpool_limits

from robustjax import files, report

RESULTS = origins.RESULTS


def run(
    path: str,
    about: str,
    main: Callable[[Path], dict[str, Any]],
    seed: int,
    packages: Iterable[str],
) -> None:
    """Call `main(folder for its figures)` and keep the numbers it returns, with their provenance.

    Args:
      path: the script's file, experiments/FOLDER/NAME.py.
      about: its docstring, which --help shows.
      main: measures and draws.
      seed: the first seed.
      packages: those that decide the result, besides JAX's.
    """
    known = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    origins.add_flag(known)
    script = Path(path).resolve()
    name, folder = script.stem, RESULTS / script.parent.name
    origins.check(folder, known.parse_args().dirty)
    folder.mkdir(parents=True, exist_ok=True)
    started, used = time.time(), time.process_time()
    with threadpool_limits(1):  # small matrices: threads would only wait for each other
        numbers = main(folder)
    command = f"python experiments/{folder.name}/{script.name}"
    origin = report.provenance(command, seed, started)
    origin["cpu_time_s"] = round(time.process_time() - used, 1)
    origin["versions"] |= {package: metadata.version(package) for package in packages}
    files.write_json(folder / f"{name}.json", {"numbers": numbers, "provenance": origin})
    print(f"{name}: {origin['wall_time_s']} s, in {folder.name}/{name}.json and its figures")
