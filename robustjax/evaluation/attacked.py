"""One attack of an evaluation: what it makes of the images, and where its snapshots are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from robustjax.attacks._engine.craft import Verdict, craft, programs
from robustjax.attacks._engine.examples import Examples, are_classes
from robustjax.attacks._engine.judgement import Judgement, judge
from robustjax.attacks._engine.ledger import Ledger, Stage, met_nan
from robustjax.attacks._engine.model import num_classes
from robustjax.attacks._engine.setting import Setting, verdict_draws
from robustjax.evaluation import diagnostics
from robustjax.evaluation.journal import Journal, fingerprint
from robustjax.evaluation.report import describe
from robustjax.evaluation.worst_case import counted, stderr
from robustjax.typing import Attack, Threat


class Outcome(NamedTuple):
    """Results of one attack on N images; those that the model has wrong were not attacked.

    Attributes:
      verdict: on every image.
      won: (N,) bool: the model was right, and the attack fooled it inside its threat.
      row: the attack's columns in `Report.examples`.
      stages: the accuracy after each stage, and its cost.
      notes: what makes it doubtful, as sentences.
      blind: see `diagnostics.of_attack`.
      counts: (N,) bool: the images that may enter the worst case.
      enters: whether any does.
    """

    verdict: Verdict
    won: np.ndarray
    row: dict[str, np.ndarray]
    stages: list[dict[str, Any]]
    notes: list[str]
    blind: float | None
    counts: np.ndarray
    enters: bool


def attacked(
    attack: Attack,
    setting: Setting,
    data: Examples,
    clean: Judgement,
    threat: Threat | None,
    diagnose: bool,
    title: str | None,
) -> Outcome:
    """Attack what the model gets right.

    Args:
      attack, setting, data: what is run, how, and on which images.
      clean: what the model makes of the clean images.
      threat: that of the worst case.
      diagnose: look for what makes the numbers doubtful; otherwise only for NaN.
      title: of the progress bar; None: no bar.
    """
    right, verdict = ~clean.fooled, _nothing(data, clean)
    ledger, notes, blind = setting.ledger, [], None
    if right.any():
        part = craft(attack, setting, data[right], title)
        for column, values in zip(verdict, part, strict=True):
            column[right] = values
        if diagnose:
            notes, blind = diagnostics.of_attack(
                attack, setting, data[right], part, ledger.stages, len(data)
            )
        else:
            notes = list(met_nan(ledger.stages))
    counts = counted(
        attack, threat, num_classes(setting.model, data), verdict.inside, verdict.distance
    )
    if counts is None:
        notes.append(diagnostics.outside(attack, threat))
    broken = right & verdict.fooled
    usable = np.zeros(len(data), bool) if counts is None else right & counts
    row = {
        "fooled": ~right | (verdict.fooled & verdict.inside),
        "counts": broken & usable,
        "distance": verdict.distance,
        "stage": verdict.stage,
    }
    if clean.logits is not None:
        row["prediction"] = verdict.prediction
    if are_classes(data.target):
        row["reached"] = np.where(right, verdict.stage >= 0, clean.prediction == data.target)
    stages = _table(ledger.stages, int(right.sum()), len(data))
    won = broken & verdict.inside
    return Outcome(verdict, won, row, stages, notes, blind, usable, counts is not None)


def clean_of(setting: Setting, data: Examples) -> Judgement:
    """Model outputs for the clean images; ValueError if they are NaN."""
    clean = judge(setting, data)
    if clean.nan.any():
        output = "output is" if clean.logits is None else "logits are"
        raise ValueError(f"the model's {output} NaN on {clean.nan.sum()} clean images")
    return clean


def _nothing(data: Examples, clean: Judgement) -> Verdict:
    """The verdict on images that were not attacked, since the model has them wrong."""
    n = len(data)
    return Verdict(
        image=data.image.copy(),
        distance=np.zeros(n, np.float32),
        inside=np.ones(n, bool),
        prediction=clean.prediction.copy(),
        wrong=clean.wrong.copy(),
        hits=clean.hits.copy(),
        stage=np.full(n, -1),
    )


def _table(stages: Sequence[Stage], right: int, total: int) -> list[dict[str, Any]]:
    """The accuracy after each stage, and what the stage cost."""
    rows = []
    for stage in stages:
        right -= stage.succeeded
        rows.append(
            {
                "attack": describe(stage.attack),
                "path": list(stage.path),
                "attacked": stage.attacked,
                "accuracy": right / total,
                "stderr": stderr(right / total, total),
                "forwards": stage.cost.forwards,
                "backwards": stage.cost.backwards,
                "seconds": round(stage.seconds, 3),
            }
        )
        if stage.differed is not None:
            rows[-1]["differed"] = stage.differed
    return rows


def ledgers(
    journal: str | os.PathLike | Journal | None, setting: Setting, data: Examples, clean: Judgement
) -> Callable[[Attack], Ledger]:
    """The ledger of every attack: in the journal, under an address of all that decides its result.

    The address of an attack alone: what else is attacked, and by which name, does not enter it.
    """
    if journal is None:
        return lambda attack: Ledger()
    kept = journal if isinstance(journal, Journal) else Journal(journal)
    weights = jax.tree.leaves((setting.model, setting.surrogate))
    arrays = data.rows(), setting.key, weights, clean.logits
    about = fingerprint(arrays, None, ())

    def ledger_of(attack):
        numbers = [leaf for leaf in jax.tree.leaves(attack) if isinstance(leaf, ArrayLike)]
        text = [about, describe(attack), verdict_draws(setting), setting.vote]
        return kept.ledger(fingerprint(numbers, text, programs([attack], setting, data)))

    return ledger_of
