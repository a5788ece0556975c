"""Checkpoints by Orbax: a run resumes from the newest intact one, never from another run's."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from robustjax import files, parallel
from robustjax.lazy import Lazy

if TYPE_CHECKING:
    import orbax.checkpoint as ocp
else:
    ocp = Lazy("orbax.checkpoint")


OWN = "sha256"
"""The entry of `meta` that depends on all others and on the state."""


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
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Write `state` (a pytree of arrays) and `meta` (plain JSON) as checkpoint `step`."""
        if step in self._manager.all_steps():  # an unreadable one that the resumed run replaces
            self._manager.delete(step)
        meta = meta | {OWN: digest(state, meta)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=items, force=True)

    def restore(self, template: Any, identity: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """The newest intact checkpoint, or None if there is none at all.

        Args:
          template: a state of the same structure, with the shardings that the restored one gets.
          identity: entries that `meta` must hold for the checkpoint to belong to this run.

        Returns:
          (state, meta).

        Raises:
          ValueError: the checkpoint belongs to another configuration, or none can be read.
        """
        last_error = None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                item = ocp.args.Composite(meta=ocp.args.JsonRestore())
                meta = self._manager.restore(step, args=item)["meta"]
                refuse_foreign(self.folder, meta, identity)
                item = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
                state, written = (
                    self._manager.restore(step, args=item)["state"],
                    meta.pop("sha256", ""),
                )
                if written not in ("", digest(state, meta)):  # older versions wrote none
                    raise ValueError("its content has changed")
                return state, meta
            except ForeignCheckpoint:
                raise
            except Exception as error:  # a damaged file can raise anything in Orbax and TensorStore
                last_error = error
                warnings.warn(
                    f"checkpoint {self.folder / str(step)} is damaged ({type(error).__name__}); "
                    "trying the one before",
                    stacklevel=2,
                )
        if last_error is not None:
            raise ValueError(
                f"no checkpoint in {self.folder} can be read: restore a copy, or delete the run's "
                "folder and start over"
            ) from last_error
        return None


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
            yield from _differences(inner, theirs.get(name), ours.get(name))
    elif theirs != ours:
        yield place, theirs, ours


class ForeignCheckpoint(ValueError):
    """A checkpoint of a different configuration."""
