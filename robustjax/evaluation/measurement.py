"""What an evaluation does: attack what the model gets right, column by column of a table."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, NamedTuple

import numpy as np

from robustjax.attacks._core.randomized import Randomized
from robustjax.attacks._engine.examples import Examples, are_classes
from robustjax.attacks._engine.judgement import Judgement, judge
from robustjax.attacks._engine.model import num_classes
from robustjax.attacks._engine.setting import Setting
from robustjax.evaluation import diagnostics, model_diagnostics
from robustjax.evaluation.attacked import Outcome, attacked, clean_of, ledgers
from robustjax.evaluation.draws import attack_columns, clean_columns, frozen
from robustjax.evaluation.journal import Journal
from robustjax.evaluation.worst_case import accuracies
from robustjax.typing import Attack, Threat


@dataclasses.dataclass(frozen=True)
class Request:
    """What `evaluate` was asked for, and has checked: see there."""

    setting: Setting
    data: Examples
    attacks: dict[str, Attack]
    threat: Threat | None
    levels: int | None
    journal: str | os.PathLike | Journal | None
    diagnose: bool
    progress: bool

    @property
    def draws(self) -> bool:
        """Whether the model draws."""
        return isinstance(self.setting.model, Randomized)

    def with_one_draw(self) -> Request:
        """The same about the model with the one draw that it holds."""
        setting = dataclasses.replace(
            self.setting, model=frozen(self.setting.model), draws=None, vote=False
        )
        return dataclasses.replace(self, setting=setting, levels=None, diagnose=False)


class Measurement(NamedTuple):
    """What was found.

    Attributes:
      table: see `Report.examples`.
      outcomes: of each attack.
      accuracies: see `worst_case.accuracies`.
      notes: what makes the numbers doubtful, as sentences.
    """

    table: dict[str, Any]
    outcomes: dict[str, Outcome]
    accuracies: dict[str, dict[str, Any]]
    notes: list[str]


def measure(asked: Request) -> Measurement:
    """Judge the clean images, and attack those that the model gets right."""
    setting, data, attacks = asked.setting, asked.data, asked.attacks
    clean = clean_of(setting, data)
    ledger_of = ledgers(asked.journal, setting, data, clean)
    table, notes = _clean_table(asked, clean), _of_model(asked, clean)
    outcomes = {}
    for name, attack in attacks.items():
        own = dataclasses.replace(setting, ledger=ledger_of(attack))
        title = name if asked.progress else None
        found = attacked(attack, own, data, clean, asked.threat, asked.diagnose, title)
        outcomes[name], table[name] = found, found.row
        if asked.draws:
            usable = ~clean.fooled & found.verdict.inside
            table[name] |= attack_columns(setting, data, found.verdict, usable, found.counts, table)
        if asked.levels is not None:
            survives = _rounded(setting, data, found.verdict.image, asked.levels).fooled
            table[name]["survives"] = survives & found.won
        notes += [f"{name}: {text}" for text in found.notes]
    if asked.diagnose:
        under = {name: o for name, o in outcomes.items() if o.enters}
        notes += diagnostics.side_by_side(
            {name: o.won for name, o in under.items()},
            {name: o.stages for name, o in under.items()},
        )
    classes = num_classes(setting.model, data) if are_classes(data.label) else 0
    return Measurement(table, outcomes, accuracies(table, list(attacks), classes), notes)


def _clean_table(asked: Request, clean: Judgement) -> dict[str, Any]:
    data = asked.data
    table: dict[str, Any] = {"index": data.index, "label": data.label, "wrong": clean.wrong}
    if clean.logits is not None:
        table["prediction"] = clean.prediction
    if are_classes(data.target):
        table["target"] = data.target
    return table | (clean_columns(asked.setting, data, clean) if asked.draws else {})


def _of_model(asked: Request, clean: Judgement) -> list[str]:
    if not asked.diagnose:
        return []
    classes = num_classes(asked.setting.model, asked.data)
    steep = any(diagnostics.differentiates(attack, classes) for attack in asked.attacks.values())
    threat = asked.threat if steep else None
    return model_diagnostics.of_model(asked.setting, asked.data, clean, threat)


def _rounded(setting: Setting, data: Examples, images: np.ndarray, levels: int) -> Judgement:
    """Model outputs for images whose pixels are rounded to multiples of 1 / levels."""
    return judge(setting, data, np.round(images * np.float32(levels)) / np.float32(levels))
