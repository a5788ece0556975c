"""Checkpoints by Orbax: a run resumes from the newest intact one, never from another run's."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from robustjax import files, parallel
from robustjax.lazy import Lazy
from robustjax.warn import warn

if TYPE_CHECKING:
    import orbax.checkpoint as ocp
else:
    ocp = Lazy("orbax.checkpoint")


OWN = "sha256"
"""The entry of `meta` that depends on all others and on the state."""

LENGTH, EXTENDED = "recipe.epochs", "extended"
"""A resumed run may be longer than it was: this entry of an identity may grow, and this one says
what it was before."""


class Checkpoints:
    """The checkpoints of one run in one folder.

    Writing is atomic (a folder is renamed into place once complete), so a killed run leaves at most
    an unfinished folder, which the next one removes.

    Guarantees:
      A checkpoint in which a bit of the state or of `meta` has changed is not restored.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        """Open or create `folder`, which keeps the newest `keep` checkpoints."""
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
        )
        self.folder = Path(folder).absolute()
        _raise_only()
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Write `state` (a pytree of arrays) and `meta` (plain JSON) as checkpoint `step`.

        It takes the place of those of this step and later ones.

        Raises:
          OSError: it could not be written; those before are kept.
        """
        meta = meta | {OWN: digest(state, meta)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        with uninterrupted():
            try:
                for later in self._manager.all_steps():  # unreadable, or of a run that was killed
                    if later >= step:
                        self._manager.delete(later)
                self._manager.save(step, args=items, force=True)
            except Exception as error:  # as in `restore`
                where = self.folder / str(step)
                for unfinished in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):
                    shutil.rmtree(unfinished, ignore_errors=True)
                raise OSError(
                    f"checkpoint {where} could not be written ({_cause(error)}); those before it "
                    "are kept"
                ) from error

    def restore(self, template: Any, identity: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """The newest intact checkpoint, or None if there is none at all.

        Args:
          template: a state of the same structure, with the shardings that the restored one gets.
          identity: entries that `meta` must hold for the checkpoint to belong to this run.

        Returns:
          (state, meta).

        Raises:
          ForeignCheckpoint: the checkpoint belongs to another configuration.
          DamagedCheckpoint: there are some, and none can be read.
        """
        last_error = None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                meta = self._read(step, meta=ocp.args.JsonRestore())
                refuse_foreign(self.folder, meta, identity)
                state = self._read(step, state=ocp.args.StandardRestore(abstract))
                written = meta.pop(OWN, "")
                if written not in ("", digest(state, meta)):  # older versions wrote none
                    raise ValueError("its content has changed")
                return state, meta
            except ForeignCheckpoint:
                raise
            except Exception as error:  # a damaged file can raise anything in Orbax and TensorStore
                last_error = error
                warn(
                    f"checkpoint {self.folder / str(step)} is damaged ({type(error).__name__}); "
                    "trying the one before",
                )
        if last_error is not None:
            raise DamagedCheckpoint(
                f"no checkpoint in {self.folder} can be read: restore a copy, or delete the run's "
                "folder and start over"
            ) from last_error
        return None

    def _read(self, step: int, **item: Any) -> Any:
        """One item of a checkpoint."""
        with uninterrupted():
            (found,) = self._manager.restore(step, args=ocp.args.Composite(**item)).values()
        return found


def _cause(error: Exception) -> str:
    """What the operating system says, or else the beginning of the error."""
    numbered = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore's words
    number = int(numbered[1]) if numbered else getattr(error, "errno", None)
    return os.strerror(number) if number else f"{type(error).__name__}: {error}"[:200]


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Deliver Ctrl-C when the block has ended: Orbax's threads cannot be interrupted in order."""
    received: list[tuple[int, Any]] = []
    try:
        before = signal.signal(signal.SIGINT, lambda *signal: received.append(signal))
    except ValueError:  # not the main thread, which alone handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received and callable(before):
            before(*received[0])


@functools.cache
def _raise_only() -> None:
    """Keep Orbax's and TensorStore's threads from printing tracebacks of what is raised anyway."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)  # of a coroutine
        abandoned = "orbax" in code.co_filename if code else False
        if not abandoned and str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("absl").addFilter(lambda record: "_SignalingThread" not in str(record.msg))


def digest(state: Any, meta: Mapping[str, Any]) -> str:
    """The SHA-256 of a state and its description, as 64 hex digits."""
    found = hashlib.sha256(files.digest(meta).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = parallel.gather(leaf)
        found.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return found.hexdigest()


def refuse_foreign(where: Path, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise ForeignCheckpoint if a run's description `found` differs from this run's identity."""
    for name, value in identity.items():
        if name == EXTENDED:
            continue
        for place, theirs, ours in _differences(name, found.get(name), value):
            raise ForeignCheckpoint(
                f"{where} belongs to another run: its {place} is {theirs!r}, not {ours!r}; "
                "choose another folder, or the settings of that run"
            )


def _differences(place: str, theirs: Any, ours: Any) -> Iterator[tuple[str, Any, Any]]:
    """The leaves where two JSON values differ: (place, theirs, ours)."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for name in {**ours, **theirs}:
            if name.endswith("_sha256") and name not in theirs:  # a run of an older version
                continue
            inner = place if name == "fields" else f"{place}.{name}"
            if inner == LENGTH and _extends(ours.get(name), theirs.get(name)):
                continue
            yield from _differences(inner, theirs.get(name), ours.get(name))
    elif theirs != ours:
        yield place, theirs, ours


def _extends(ours: Any, theirs: Any) -> bool:
    return isinstance(ours, int) and isinstance(theirs, int) and ours > theirs


class ForeignCheckpoint(ValueError):
    """A checkpoint of a different configuration."""


class DamagedCheckpoint(ValueError):
    """No checkpoint of a run can be read."""
