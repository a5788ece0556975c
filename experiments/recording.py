"""Run a script of a folder of experiments: measure, draw, and keep both in results/FOLDER."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import figures
import origins
from threadpoolctl import threadpool_limits

from robustjax import files, report

RESULTS = origins.RESULTS


def run(
    file: str,
    about: str,
    main: Callable[[], dict[str, Any]],
    draw: figures.Draw,
    seed: int,
    packages: Iterable[str],
) -> None:
    """Call `main()`, keep the numbers it returns, with their provenance, and draw them.

    Args:
      file: the script's, experiments/FOLDER/NAME.py.
      about: its docstring, which --help shows.
      main: measures; its "arrays", if it returns some, are for the figure.
      draw: the figure; --draw calls it alone.
      seed: the first seed.
      packages: those that decide the result, besides JAX's.
    """
    known = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    origins.add_flag(known)
    figures.add_flag(known)
    options = known.parse_args()
    script = Path(file).resolve()
    name, folder = script.stem, RESULTS / script.parent.name
    path = folder / f"{name}.json"
    if options.draw:
        figures.redraw(path, draw)
        return
    origins.check(folder, options.dirty)
    folder.mkdir(parents=True, exist_ok=True)
    started, used = time.time(), time.process_time()
    with threadpool_limits(1):  # small matrices: threads would only wait for each other
        numbers = main()
    command = f"python experiments/{folder.name}/{script.name}"
    origin = report.provenance(command, seed, started)
    origin["cpu_time_s"] = round(time.process_time() - used, 1)
    origin["versions"] |= {package: metadata.version(package) for package in packages}
    if "arrays" in numbers:
        figures.keep_arrays(path, numbers.pop("arrays"))
    files.write_json(path, {"numbers": numbers, "provenance": origin})
    figures.redraw(path, draw)
    print(f"{name}: {origin['wall_time_s']} s, in {folder.name}/{name}.json and its figures")
