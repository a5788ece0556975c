"""The parts that benchmarks share: --one-core and --out, a clock, a race, and a record of both."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from pathlib import Path

import jax

from robustjax import files, parallel, report

sys.path.append(str(Path(__file__).parents[1]))
import origins


def parser(description):
    """The flags every benchmark has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--one-core", action="store_true", help="CPU seconds on one core")
    made.add_argument("--out", type=Path, help="where to write the JSON")
    origins.add_flag(made)
    return made


def start(options, batch_size=16):
    """The clock of the flags; every core is a device from here on, or one core is all there is."""
    origins.check(options.out, options.dirty)
    if options.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    parallel.use_all_cores(batch_size)
    return time.process_time if options.one_core else time.perf_counter


def race(contenders, repeats, clock):
    """Seconds of every round of each: everybody runs once a round."""
    for run in contenders.values():  # compile, choose kernels
        run()
        run()
    rounds = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            time.sleep(0.5)
            start = clock()
            run()
            rounds[name].append(clock() - start)
    for name, seconds in rounds.items():
        print(
            f"  {name:28s} best {min(seconds):7.3f} s   all "
            + " ".join(f"{s:.3f}" for s in seconds),
            flush=True,
        )
    return rounds


def versions():
    wanted = ("jax", "jaxlib", "flax", "numpy", "torch", "torchattacks")
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {"python": platform.python_version()} | {n: found[n] for n in wanted if n in found}


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def keep(options, began, seed=0, **found):
    """Write what was found, and where it is from, to --out."""
    if options.out:
        record = {
            **report.provenance(report.command_line(), seed, began),
            "peers": versions(),
            "cpu": cpu_name(),
            "devices": jax.device_count(),
            "clock": "CPU seconds" if options.one_core else "wall seconds",
            "load_average": os.getloadavg()[0],
            **found,
        }
        files.write_json(options.out, record)
