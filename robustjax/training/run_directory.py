"""What a run leaves in its folder but for checkpoints; process 0 writes, all processes look."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from robustjax import files, models, parallel
from robustjax.checkpoint import refuse_foreign
from robustjax.data.resident import Layout
from robustjax.warn import warn
from robustjax.writing import locked


@contextlib.contextmanager
def open_run(out: Path, identity: dict[str, Any], resume: bool) -> Iterator[None]:
    """Hold `out`, which must be free or hold this very run.

    Raises:
      ValueError: another run is there, or this one without `resume`, or somebody writes there now.
    """
    with _alone(out):
        path = out / "config.json"
        begun = path.exists() or any((out / "checkpoints" / "last").glob("[0-9]*"))
        if begun and not resume:
            raise ValueError(f"{out} holds a run already; resume it, or choose another folder")
        if path.exists():
            refuse_foreign(path, files.read_json(path, {}), identity)
        parallel.barrier("every process has looked")
        yield


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Lock the folder for all processes of this run."""
    with contextlib.ExitStack() as stack:
        refused = None
        if jax.process_index() == 0:
            try:
                stack.enter_context(locked(out, "a run"))
            except (OSError, ValueError) as error:
                refused = error
        if parallel.any_process(refused is not None):
            raise refused or ValueError(f"process 0 cannot write to {out}")
        yield


def surroundings(examples: Layout) -> dict[str, Any]:
    """What may change the rounding of a run, and with it the last bits of its weights.

    Args:
      examples: where the training set lives, which the memory of the devices decides.
    """
    kind = jax.devices()[0].device_kind
    about = {"devices": jax.device_count(), "kind": kind, "jax": jax.__version__}
    return about | {"training set": examples}


def warn_of_changes(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Warn about what a run no longer promises when it resumes elsewhere.

    Args:
      before: the `surroundings` of its checkpoint, or an older release's part of them; None: it
        does not say.
      now: those of this process.
    """
    before = before or {}
    changes = [f"{n} {before[n]} -> {now[n]}" for n in now if before.get(n, now[n]) != now[n]]
    if changes:
        warn(
            f"this run resumes in a different environment ({', '.join(changes)}), where sums "
            "round differently: its weights and accuracies will not be those of an uninterrupted "
            "run. On a CPU, JAX_NUM_CPU_DEVICES sets the number of devices",
        )


def write_config(out: Path, identity: dict[str, Any]) -> None:
    """Write config.json."""
    if jax.process_index() == 0:
        files.write_json(out / "config.json", identity)


def save_weights(path: Path, variables: Any, identity: dict[str, Any]) -> None:
    """Write variables, whole on every device, for NumPy to read, tied to the run's config.json."""
    if jax.process_index() == 0:
        variables = jax.tree.map(lambda a: a.addressable_data(0), variables)
        models.save_weights(path, variables, identity)
