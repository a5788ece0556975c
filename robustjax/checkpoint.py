"""Checkpoints by Orbax: all of the state; the newest readable one wins, foreign ones do not."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports every save to the root handler


class Checkpoints:
    """The checkpoints of one run in one folder, newest last.

    Writing is atomic (a folder is renamed into place when complete), so a killed run leaves only
    an unfinished folder, which is ignored.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        """Open or create `folder`; `keep` checkpoints stay, older ones are deleted."""
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=False
        )
        self.folder = Path(folder).absolute()
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Write `state` (a pytree of arrays) and `meta` (plain JSON) as checkpoint `step`."""
        if step in self._manager.all_steps():  # a torn one that the run has come past again
            self._manager.delete(step)
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=items, force=True)

    def restore(self, template: Any, identity: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that can be read, or None where there is none at all.

        Args:
          template: a state of the same structure, placed as the restored one shall be.
          identity: what `meta` must hold for the checkpoint to belong to this run.

        Returns:
          (state, meta).

        Raises:
          ValueError: the checkpoint belongs to another configuration, or none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        for step in steps:
            try:
                meta = self._manager.restore(
                    step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
                )
                refuse_foreign(self.folder, meta.meta, identity)
                items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
                return self._manager.restore(step, args=items).state, meta.meta
            except ForeignCheckpoint:
                raise
            except Exception as error:  # Orbax and TensorStore raise whatever a torn file provokes
                warnings.warn(
                    f"checkpoint {self.folder / str(step)} cannot be read "
                    f"({type(error).__name__}); trying the one before",
                    stacklevel=2,
                )
        if steps:
            raise ValueError(
                f"no checkpoint in {self.folder} can be read; delete the folder to start again"
            )
        return None


def refuse_foreign(where: Path, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise ForeignCheckpoint if a run's description `found` differs from this run's identity."""
    for name, value in identity.items():
        if found.get(name) != value:
            raise ForeignCheckpoint(
                f"{where} belongs to another run: its {name} is {found.get(name)!r}, "
                f"not {value!r}; choose another --out, or the settings it was made with"
            )


class ForeignCheckpoint(ValueError):
    """A checkpoint of a different configuration."""
