"""A run between two looks of the host: its state, its scores, and the files that hold them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from robustjax import models
from robustjax.checkpoint import EXTENDED, Checkpoints, DamagedCheckpoint
from robustjax.training.placement import Placement
from robustjax.training.run_directory import save_weights, warn_of_changes, write_config
from robustjax.training.saver import Saver, snapshot
from robustjax.training.state import TrainState
from robustjax.warn import warn


class Run:
    """A run in its folder, which `open_run` holds.

    Args:
      out: the run directory.
      identity: what config.json holds.
      home: where the state lives.
      around: the `surroundings` of this process.

    Attributes:
      state: after the last step; there is one after `begin`.
      history: the validation scores of all epochs, oldest first.
      best: the best since the last roll-back, or -1.
    """

    state: TrainState

    def __init__(
        self, out: Path, identity: dict[str, Any], home: Placement, around: dict[str, Any]
    ):
        self.out, self.identity, self.home = out, identity, home
        self.history: list[float] = []
        self.best = -1.0
        self._around = around
        self._newest = Checkpoints(out / "checkpoints" / "last", 2)
        self._kept = Checkpoints(out / "checkpoints" / "best", 1)
        self._due: list[tuple[Checkpoints, TrainState, dict[str, Any]]] = []

    @property
    def step(self) -> int:
        """The steps that are done."""
        return int(self.state.step)

    @property
    def variables(self) -> Any:
        """The variables to evaluate, whole on every device."""
        return self.home.whole(self.state.variables)

    def begin(self, new: TrainState, init_from: str | Path | None, epochs: int) -> None:
        """Go to the newest checkpoint, or else to a new state.

        Args:
          new: a state before the first step.
          init_from: another run, whose body a new state takes.
          epochs: of the run now; it may have had fewer.
        """
        found = self._newest.restore(self.home.to_save(self.home.put(new)), self.identity)
        if found is None:
            if (self.out / "metrics.jsonl").exists():
                where = self.out / "checkpoints"
                warn(f"{where} holds no checkpoint: the run starts over")
            self.state = self.home.put(new if init_from is None else fine_tuned(new, init_from))
            return
        self.state, meta = self.home.from_saved(found[0]), found[1]
        self.best, self.history = meta["best"], meta["history"]
        warn_of_changes(meta.get("surroundings"), self._around)
        self.identity |= extended(meta, epochs, self.step)
        if self.identity.get(EXTENDED) != meta.get(EXTENDED):
            for name, kept in (("weights", self._kept), ("weights_last", self._newest)):
                path = self.out / f"{name}.npz"
                if path.exists():  # it is tied to the config that changes
                    self._export(kept, path)
        write_config(self.out, self.identity)  # in case it was lost, or has changed

    def scored(self, score: float) -> None:
        """Take the validation score of an epoch; `save` will keep the best state."""
        self.history.append(score)
        if score > self.best:
            self.best = score
            self._due.append((self._kept, snapshot(self.state), self._meta()))

    def save(self, saver: Saver, now: bool) -> None:
        """Write the checkpoints that are due.

        Args:
          saver: the thread that writes.
          now: leave nothing out that waits, and return when all is written.
        """
        if now:
            saver.wait()
        optional = not self._due
        self._due.append((self._newest, snapshot(self.state), self._meta()))
        self._hand_over(saver, optional)
        if now:
            saver.wait()

    def roll_back(self, saver: Saver) -> None:
        """Go to the best state, at the step of this one, and begin a new search for the best."""
        self._hand_over(saver)
        saver.wait()
        found = self._kept.restore(self.home.to_save(self.state), self.identity)
        if found is None:
            raise ValueError(f"{self._kept.folder} holds no checkpoint to go back to")
        self.state = self.home.from_saved(found[0]).replace(step=self.state.step)
        self.best = -1.0

    def finish(self, early_stopping: bool) -> None:
        """Write the weights: the last, and the best if those are the run's."""
        save_weights(self.out / "weights_last.npz", self.variables, self.identity)
        if early_stopping:
            self._export(self._kept, self.out / "weights.npz")
        else:
            save_weights(self.out / "weights.npz", self.variables, self.identity)

    def _meta(self) -> dict[str, Any]:
        scores = {"best": self.best, "history": [*self.history]}
        return self.identity | scores | {"surroundings": self._around}

    def _hand_over(self, saver: Saver, optional: bool = False) -> None:
        due, self._due = self._due, []
        saver.put(functools.partial(self._write, self.step, due), optional)

    def _write(self, step: int, due: list[tuple[Checkpoints, TrainState, dict[str, Any]]]) -> None:
        for checkpoints, state, meta in due:
            checkpoints.save(step, self.home.to_save(state), meta)
            if checkpoints is self._kept:
                weights = self.home.whole(state.variables)
                save_weights(self.out / "weights.npz", weights, self.identity)

    def _export(self, kept: Checkpoints, path: Path) -> None:
        """Write a checkpoint's weights to `path`; without a checkpoint, the intact ones there stay.

        Raises:
          ValueError: there is neither.
        """
        try:
            found = kept.restore(self.home.to_save(self.state), self.identity)
        except DamagedCheckpoint as error:
            warn(str(error))
            found = None
        if found:
            variables = self.home.whole(self.home.from_saved(found[0]).variables)
            save_weights(path, variables, self.identity)
            return
        try:
            models.load_weights(path, self.identity)
        except (OSError, ValueError) as error:
            raise ValueError(f"{kept.folder} holds no checkpoint, and {error}") from error


def extended(meta: Mapping[str, Any], epochs: int, step: int) -> dict[str, Any]:
    """The record of the shorter runs that this one extends; empty if there are none.

    Args:
      meta: of the checkpoint that the run resumes from, at `step`.
      epochs: of the run now.
    """
    earlier, before = meta.get(EXTENDED, []), meta["recipe"]["fields"]["epochs"]
    if before != epochs:
        earlier = [*earlier, {"epochs": before, "until_step": step}]
        warn(
            f"this run of {before} epochs is extended to {epochs}: fractions of training (the "
            f"schedule's, warm-ups, starts) now count from {epochs} epochs, so where any matter "
            "the weights will not be those of a run that had this length from its beginning",
        )
    return {EXTENDED: earlier} if earlier else {}


def fine_tuned(state: TrainState, run: str | Path) -> TrainState:
    """A new state with its own head and the rest of another run's best weights."""
    variables = models.transplant(run, {"params": state.params, **state.stats})
    params = variables.pop("params")
    ema = jax.tree.map(jnp.copy, params) if jax.tree.leaves(state.ema) else ()
    return state.replace(params=params, stats=variables, ema=ema)
