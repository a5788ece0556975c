"""`robustjax sweep FILE`."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tyro.conf import Positional

import robustjax as rj
from robustjax.checks import LARGEST, check_number
from robustjax.cli import Stopped
from robustjax.cli.evaluate import EvaluateOptions
from robustjax.cli.flags import choose_threat, read
from robustjax.cli.grid import Cell, Grid, read_grid
from robustjax.cli.train import parsed
from robustjax.files import read_json, write_json
from robustjax.progress import bar

DONE = "sweep.json"
"""In a run's folder: the words of the commands that made it. In the sweep's: the table."""


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """Train and evaluate every combination of a grid, here or on Slurm; print one table.

    FILE is TOML. Its table `train` holds the flags of `robustjax train` that all runs share, and
    `grid` a list of values for each flag that varies: every combination is a run, and the table has
    means and deviations over `seed`. `evaluate` holds the flags of `robustjax evaluate`; without it
    the runs are only trained. `launch` holds the parameters of submitit's AutoExecutor, such as
    cluster = "slurm" (the default is "local"), and `parallel`, the number of runs at a time.
    docs/how_to/sweep.md has an example.

    The same command resumes: runs that are finished stay, others continue. It needs submitit:
    pip install 'robustjax[sweep]'.

    Args:
      file: the sweep.
      dry_run: print the commands of all runs; run nothing.
    """

    file: Positional[Path]
    dry_run: bool = False


class Job:
    """The commands of one run, one after the other; `submitit` calls it, and requeues it."""

    def __init__(self, commands: Sequence[Sequence[str]], folder: Path):
        """Keep the words of the commands, and the run's folder."""
        self.commands, self.folder = commands, folder

    def __call__(self) -> None:
        """Run the commands.

        Raises:
          RuntimeError: one of them failed.
        """
        for words in self.commands:
            child = subprocess.Popen([sys.executable, "-m", "robustjax", *words])
            try:
                status = child.wait()
            except BaseException:  # cancelled or preempted: training saves before it ends
                child.send_signal(signal.SIGTERM)
                child.wait()
                raise
            if status:
                raise RuntimeError(f"{shlex.join(['robustjax', *words])} ended with {status}")
        write_json(self.folder / DONE, record(self.commands))

    def checkpoint(self) -> Any:
        """The job that continues this one after a preemption or a timeout."""
        return launcher().helpers.DelayedSubmission(self)


def command(words: Sequence[str]) -> None:
    """`robustjax sweep` with these words."""
    options = read(SweepOptions, "sweep", words)
    grid = read_grid(options.file)
    for cell in grid.cells:
        check(cell, options.file)
    if options.dry_run:
        for cell in grid.cells:
            print(*(shlex.join(["robustjax", *w]) for w in commands(grid, cell)), sep="\n")
        return
    started = time.time()
    failed = run(grid)
    rows = rj.report.average([(cell.labels, grid.out / cell.name) for cell in grid.cells])
    origin = rj.report.provenance(rj.report.command_line(), 0, started)
    write_json(grid.out / DONE, {"provenance": origin, "rows": rows, "failed": sorted(failed)})
    print(rj.report.average_table(rows))
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(grid.cells)} runs failed: "
            + "; ".join(f"{name}, see {log}" for name, log in sorted(failed.items()))
        )


def check(cell: Cell, file: Path) -> None:
    """Raise ValueError unless the words of a run are right."""
    try:
        run = parsed([*cell.train, "--out", cell.name])
        choose_threat(run.options.threat, run.options.eps, rj.training.threat_of(run.method))
        if cell.evaluate is not None:
            read(EvaluateOptions, "evaluate", [cell.name, *cell.evaluate])
    except SystemExit as end:  # the reason is printed
        raise ValueError(f"{file}: the run {cell.name} cannot be started, see above") from end
    except ValueError as error:
        raise ValueError(f"{file}, run {cell.name}: {error}") from error


def commands(grid: Grid, cell: Cell) -> list[list[str]]:
    """The words of a run's commands."""
    folder = str(grid.out / cell.name)
    made = [["train", *cell.train, "--out", folder, "--resume"]]
    return made if cell.evaluate is None else [*made, ["evaluate", folder, *cell.evaluate]]


def record(words: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What a finished run keeps of its commands."""
    return {"commands": [list(w) for w in words]}


def is_finished(grid: Grid, cell: Cell) -> bool:
    """Whether exactly these commands have made the run's folder."""
    path = grid.out / cell.name / DONE
    return path.exists() and read_json(path) == record(commands(grid, cell))


def run(grid: Grid) -> dict[str, Path]:
    """Run what is not finished, so many at a time; name -> log of the runs that failed."""
    waiting = [cell for cell in grid.cells if not is_finished(grid, cell)]
    if not waiting:
        return {}
    submit, parallel = executor(grid)
    running: dict[str, Any] = {}
    failed: dict[str, Path] = {}
    done = len(grid.cells) - len(waiting)
    runs = bar("sweep", total=len(grid.cells), initial=done, unit="run")
    with runs, cancelling(running):
        while waiting or running:
            while waiting and len(running) < parallel:
                cell = waiting.pop(0)
                running[cell.name] = submit(Job(commands(grid, cell), grid.out / cell.name))
            time.sleep(0.2)
            for name in [name for name, job in running.items() if job.done()]:
                job = running.pop(name)
                if job.exception() is not None:
                    failed[name] = job.paths.stderr
                runs.update()
                runs.set_postfix_str(f"{name} {'failed' if name in failed else 'done'}")
    return failed


@contextlib.contextmanager
def cancelling(running: Mapping[str, Any]) -> Iterator[None]:
    """Cancel the jobs on Ctrl-C; training saves before it ends."""
    try:
        yield
    except KeyboardInterrupt:
        for job in running.values():
            job.cancel()
        while not all(job.done() for job in running.values()):
            time.sleep(0.2)
        raise Stopped(130, f"stopped, {len(running)} unfinished runs are saved") from None


def executor(grid: Grid) -> tuple[Callable[[Job], Any], int]:
    """A function that submits a job, and how many may run at a time.

    Raises:
      ValueError: a setting of the launcher is wrong.
    """
    settings = {"cluster": "local", "timeout_min": 60 * 24} | dict(grid.launch)
    cluster = settings.pop("cluster")
    parallel = settings.pop("parallel", 1 if cluster == "local" else len(grid.cells))
    check_number("launch.parallel", parallel, 1, LARGEST)
    try:
        made = launcher().AutoExecutor(grid.out / "jobs", cluster=cluster)
        made.update_parameters(name=grid.out.name, **settings)
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"launch: {str(error).splitlines()[0]}") from error
    return made.submit, int(parallel)


def launcher() -> Any:
    """The package submitit.

    Raises:
      ImportError: it is not installed.
    """
    try:
        import submitit  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("a sweep needs submitit: pip install 'robustjax[sweep]'") from error
    return submitit
