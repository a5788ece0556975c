"""Detectors under attacks that ignore them, come from another model, or know them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from robustjax.attacks._core.success import fooled
from robustjax.attacks._engine.craft import craft
from robustjax.attacks._engine.examples import Examples
from robustjax.attacks._engine.inputs import check_attack, check_request
from robustjax.attacks._engine.judgement import judge
from robustjax.attacks._engine.layout import layout_of
from robustjax.attacks._engine.ledger import Ledger, warn_of_nan
from robustjax.attacks._engine.setting import Setting
from robustjax.checks import checked, in_body
from robustjax.detection import (
    Rates,
    accepted_and_wrong,
    rates,
    roc,
    scores,
    threshold_at,
    with_score,
)
from robustjax.evaluation.report import describe
from robustjax.evaluation.setting import digest, setting_of
from robustjax.typing import Attack

WHITE_BOX = "white-box"
"""The name of the attack that knows the detector."""


class Views(NamedTuple):
    """Predictions and scores of the images of one attack.

    Attributes:
      prediction: (N,).
      score: (N,), higher = more normal.
    """

    prediction: np.ndarray
    score: np.ndarray


@dataclasses.dataclass(frozen=True)
class DetectionReport:
    """The result of `detect`; a table is {detector: {attack: entry}}.

    Attributes:
      n: the number of images.
      threshold: {detector: the lowest score that is accepted}.
      found: a table of `detection.Rates`.
      curves: a table of ROC curves (fpr, tpr), of the same population as the AUC.
      views: a table of predictions and scores; 'clean' is the clean images.
      attacks: {attack: its configuration}.
      setting: as in `Report.setting`, with the weights of the model, of the substitutes and of the
        detectors, and 'validation_sha256' of the images that the thresholds are chosen on.

    >>> images, labels = np.float32([0.75, 0.25, 0.25, 0.5]).reshape(2, 1, 1, 2), [0, 1]
    >>> def model(images):  # two pixels, two logits
    ...     return images[:, 0, 0]
    >>> detectors = {"max-margin": rj.detection.MaxMargin().fit(model, images, labels)}
    >>> attacks, key = {"fgsm": rj.attacks.FGSM(rj.threats.Linf(0.2))}, jax.random.key(0)
    >>> found = rj.evaluation.detect(model, detectors, images, labels, images, attacks, key)
    >>> sorted(found.to_json())
    ['attacks', 'found', 'n', 'setting', 'threshold']
    """

    n: int
    threshold: dict[str, float]
    found: dict[str, dict[str, Rates]]
    curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = dataclasses.field(repr=False)
    views: dict[str, dict[str, Views]] = dataclasses.field(repr=False)
    attacks: dict[str, Any] = dataclasses.field(repr=False)
    setting: dict[str, Any] = dataclasses.field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and numbers, None for nan; without curves and scores."""

        def plain(entry):
            fields = dataclasses.asdict(entry).items()
            return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in fields}

        return {
            "n": self.n,
            "threshold": self.threshold,
            "found": {d: {a: plain(e) for a, e in row.items()} for d, row in self.found.items()},
            "attacks": self.attacks,
            "setting": self.setting,
        }


@checked(images=in_body, validation_images=in_body, attacks=in_body)
def detect(
    logits_fn: Callable,
    detectors: Mapping[str, Callable],
    images: Any,
    labels: Any,
    validation_images: Any,
    attacks: Mapping[str, Attack],
    key: jax.Array,
    *,
    false_rejection: float = 0.05,
    substitutes: Mapping[str, Callable] | None = None,
    white_box: Attack | Mapping[str, Attack] | None = None,
    indices: Any = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> DetectionReport:
    """Threshold each detector on clean images, attack, and count what is accepted and wrong.

    One table shows three kinds of attacker. The oblivious one knows the classifier, and that of a
    substitute knows another classifier ('fgsm from NAME'); neither knows the detector, and their
    images are the same for all detectors. The white-box attacker knows classifier, detector and
    threshold, and makes images for each detector ('white-box'). All images are attacked; an image
    outside the attack's threat model (a minimum-norm attack may return one) is replaced by the
    clean image.

    Args:
      logits_fn: the classifier, a batch (B, H, W, C) -> (B, K).
      detectors: {name: a detector fitted to this classifier}.
      images, labels, key, indices, batch_size: as for `evaluate`.
      validation_images: clean images on which the thresholds are chosen.
      attacks: {name: an attack on the logits}.
      false_rejection: the largest fraction of the validation images that may be rejected.
      substitutes: {name: another classifier, attacked in place of this one}.
      white_box: an attack on a model of `with_score`, such as `JointPGD` or `CarliniWagnerWB`, or
        several by name.
      progress: show progress bars.

    Raises:
      ValueError: no detectors, no attacks, an attack of a reserved name, or as `perturb` and
        `threshold_at`.

    References: Pang et al., "Towards robust detection of adversarial examples", 2018, Sec. 4;
    Carlini et al., "On evaluating adversarial robustness", 2019: why the white-box column.

    >>> images, labels = np.float32([0.75, 0.25, 0.25, 0.5]).reshape(2, 1, 1, 2), [0, 1]
    >>> def model(images):  # two pixels, two logits
    ...     return images[:, 0, 0]
    >>> detectors = {"max-margin": rj.detection.MaxMargin().fit(model, images, labels)}
    >>> attacks, key = {"fgsm": rj.attacks.FGSM(rj.threats.Linf(0.2))}, jax.random.key(0)
    >>> found = rj.evaluation.detect(model, detectors, images, labels, images, attacks, key)
    >>> found.threshold["max-margin"], found.found["max-margin"]["fgsm"].accepted_wrong
    (0.25, 0.0)
    """
    if not detectors:
        raise ValueError("name at least one detector")
    aware = dict(white_box) if isinstance(white_box, Mapping) else {WHITE_BOX: white_box}
    aware = {name: attack for name, attack in aware.items() if attack is not None}
    if not attacks and not aware:
        raise ValueError("name at least one attack, or give a white_box")
    if reserved := ({"clean", WHITE_BOX, *aware} & set(attacks)) | ({"clean"} & set(aware)):
        raise ValueError(f"an attack cannot be named {', '.join(sorted(reserved))}")
    used = {**attacks, **aware}
    for attack in used.values():
        check_attack(attack)
    layout = layout_of(images)
    used = {name: layout.attack(attack) for name, attack in used.items()}
    given = layout.pack(images), labels, indices, batch_size, None, list(used.values())
    model, key, data, batch_size = check_request(layout.model(logits_fn), key, *given)
    setting = Setting(model, key, fooled, batch_size, Ledger())

    def made(attack: Attack, by: Setting, title: str) -> np.ndarray:
        verdict = craft(attack, by, data, title if progress else None)
        return np.where(verdict.inside.reshape(-1, 1, 1, 1), verdict.image, data.image)

    sets = {"clean": data.image}
    sets |= {name: made(used[name], setting, name) for name in attacks}
    warn_of_nan(setting.ledger)
    weights: dict[str, Any] = {"model": model}
    for source, other in (substitutes or {}).items():
        placed, *_ = check_request(layout.model(other), key, *given)
        weights[f"substitute {source}"] = placed
        by = dataclasses.replace(setting, model=placed)
        for name in attacks:
            title = f"{name} from {source}"
            sets[title] = made(used[name], by, title)
    predictions = {name: judge(setting, data, shown).prediction for name, shown in sets.items()}

    def scored(fitted: Callable, packed: np.ndarray) -> np.ndarray:
        return scores(fitted, layout.unpack(packed), batch_size=batch_size)

    threshold, views = {}, {}
    for name, fitted in detectors.items():
        clean = scores(fitted, validation_images, batch_size=batch_size)
        threshold[name] = threshold_at(clean, false_rejection)
        views[name] = {
            shown: Views(predictions[shown], scored(fitted, z)) for shown, z in sets.items()
        }
        if aware:
            watched = layout.model(with_score(fitted, threshold[name]))
            watched = check_request(watched, key, *given)[0]
            by = Setting(watched, key, accepted_and_wrong, batch_size, Ledger())
        for title in aware:
            z = made(used[title], by, f"{title}, {name}")
            judged = judge(setting, data, z).prediction
            views[name][title] = Views(judged, scored(fitted, z))
    weights |= {f"detector {name}": fitted for name, fitted in detectors.items()}
    validated_on = {"validation_sha256": digest(layout.pack(validation_images))}
    return DetectionReport(
        n=len(data),
        threshold=threshold,
        found=_table(views, lambda name, *pair: _found(data, threshold[name], *pair)),
        curves=_table(views, lambda name, *pair: _curve(data, *pair)),
        views=views,
        attacks={name: describe(attack) for name, attack in used.items()},
        setting=setting_of(weights, key, data) | validated_on,
    )


def _table(views: Mapping[str, Mapping[str, Views]], entry: Callable) -> dict[str, dict[str, Any]]:
    """`entry(detector, clean, attacked)` for every detector and attack."""
    return {
        name: {
            attack: entry(name, row["clean"], view)
            for attack, view in row.items()
            if attack != "clean"
        }
        for name, row in views.items()
    }


def _found(data: Examples, threshold: float, clean: Views, attacked: Views) -> Rates:
    return rates(data.label, *clean, *attacked, threshold=threshold)


def _curve(data: Examples, clean: Views, attacked: Views) -> tuple[np.ndarray, np.ndarray]:
    kept = (clean.prediction == data.label) & (attacked.prediction != data.label)
    return roc(clean.score[kept], attacked.score[kept])
