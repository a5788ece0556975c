"""The results that need an accelerator, as jobs that stop and resume, in their order of worth.

Command:   python experiments/gpu_jobs.py --data arrays:DIR --runs DIR --minutes 9   (--list shows
           the jobs; --only NAME takes one; --small runs each at its smallest scale, on digits)
Hardware:  one GPU, for as long as you have it. When the time is over the running job is told to
           save (SIGTERM); the same command with the same --runs goes on.
Claim:     none; each experiment says its own.
Measured:  nothing: it makes others' results, which go where each experiment puts them.

A job that fails does not hold up the others. Its last words are in RUNS/jobs.json, and the next
call tries it again.
"""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from robustjax import files

HERE = Path(__file__).parent
MERCY = 40.0
"""Seconds that a job has to save, before it is killed."""
WORDS = 2_000
"""Characters of a failed job's output that are kept."""


class Job(NamedTuple):
    """A result to make.

    Attributes:
      why: what it decides.
      command: the words after `python`, in experiments/, where {data} and {runs} are filled in.
      small: the same at the smallest scale.
    """

    why: str
    command: str
    small: str


def scaled(why: str, words: str, scale: str = "gpu") -> Job:
    """A job of an experiment that has scales."""
    words += " --runs {runs} --data "
    return Job(why, f"{words}{{data}} --scale {scale}", f"{words}digits --scale smoke")


PEAK = "benchmarks/pgd_step.py --out {runs}/pgd_step.json"
JOBS = {
    "speedrun": scaled("50 % under AutoAttack in five minutes?", "speedrun.py --only recipe"),
    "table16": scaled("our TRADES in Table 16", "table16.py --only Ours", "full"),
    "mmc": scaled("MMC's table with its AT rows", "mmc_cifar10.py"),
    "rce": scaled("detection by RCE, every phase", "rce_detection.py"),
    "takeaways": scaled("the five takeaways of Bag of Tricks", "bag_of_tricks.py"),
    "methods": scaled("the methods of Table 1 on one budget", "at_methods.py"),
    "peak": Job("PGD's fraction of the peak", PEAK, f"{PEAK} --widths 4 --batch 8 --repeats 1"),
    "suite": Job("the tests", "-m pytest ../tests", "-m pytest ../tests/test_config.py"),
}


def attempt(words: list[str], log: Path, until: float) -> tuple[str, str]:
    """Run a command until it ends or the time does -> (done, stopped or failed, its last words)."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=HERE, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            ended = process.wait(max(until - time.monotonic(), 0))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            ended = None
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(MERCY)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    state = {None: "stopped", 0: "done"}.get(ended, "failed")
    return state, log.read_text(errors="replace")[-WORDS:]


def main(options: argparse.Namespace, jobs: dict[str, Job]) -> None:
    """Run the jobs that are not done, one after the other."""
    if options.only and options.only not in jobs:
        near = difflib.get_close_matches(options.only, jobs, 1, 0)
        sys.exit(f"there is no job {options.only!r}; did you mean {near[0]!r}? See --list")
    options.runs.mkdir(parents=True, exist_ok=True)
    runs, record = options.runs.resolve(), options.runs / "jobs.json"
    until = time.monotonic() + 60 * options.minutes - MERCY
    for name in [options.only] if options.only else list(jobs):
        found = files.read_json(record) if record.exists() else {}
        before = found.get(name, {"seconds": 0.0})
        if before.get("state") == "done" or time.monotonic() >= until:
            continue
        template = jobs[name].small if options.small else jobs[name].command
        words = template.format(data=options.data, runs=runs).split()
        started = time.monotonic()
        state, last = attempt(words, options.runs / f"{name}.log", until)
        seconds = round(before["seconds"] + time.monotonic() - started, 1)
        entry = {"state": state, "seconds": seconds, "command": words}
        files.write_json(
            record, found | {name: entry | ({"last": last} if state == "failed" else {})}
        )
        print(f"{name:12s} {state:8s} {seconds:8.1f} s", flush=True)


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar10", help="cifar10 or arrays:DIR")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs go")
    parser.add_argument("--minutes", type=float, default=9.0, help="to stop after")
    parser.add_argument("--only", help="run only the job with this name")
    parser.add_argument("--small", action="store_true", help="the smallest scale, on digits")
    parser.add_argument("--list", action="store_true", help="print the jobs")
    return parser.parse_args(words)


if __name__ == "__main__":
    given = parsed()
    if given.list:
        print("\n".join(f"{name:12s} {job.why}\n    {job.command}" for name, job in JOBS.items()))
    else:
        main(given, JOBS)
