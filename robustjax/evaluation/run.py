"""`evaluate`, `curve`, `zero_gradient`: run attacks on what the model gets right, and count."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from robustjax.attacks._core.ensemble import leaves, with_eps
from robustjax.attacks._core.iterative import MinimumNorm
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._engine.craft import (
    Judgement,
    Setting,
    Verdict,
    craft,
    judge,
    programs,
)
from robustjax.attacks._engine.inputs import (
    Examples,
    are_classes,
    check_attack,
    check_request,
    num_classes,
)
from robustjax.attacks._engine.ledger import Ledger, Stage, met_nan
from robustjax.checks import check_number
from robustjax.evaluation import diagnostics
from robustjax.evaluation.journal import Journal, fingerprint
from robustjax.evaluation.report import Report, check_radii, describe, points
from robustjax.evaluation.setting import setting_of
from robustjax.evaluation.worst_case import accuracies, common_threat, counted, own_threats, stderr
from robustjax.typing import Attack, Threat


def evaluate(
    logits_fn: Callable,
    images: Any,
    labels: Any,
    attacks: Mapping[str, Attack],
    key: jax.Array,
    *,
    targets: Any = None,
    indices: Any = None,
    batch_size: int | None = None,
    success: Success = fooled,
    threat: Threat | None = None,
    levels: int | None = None,
    journal: str | os.PathLike | Journal | None = None,
    diagnose: bool = True,
    progress: bool = False,
) -> Report:
    """Clean, per-attack and worst-case accuracy, with the diagnostics that make them credible.

    Only images that the model gets right are attacked. Every returned image is checked to be
    finite, in its box and in its ball before it counts; a minimum-norm attack counts where its
    distance is at most the eps of its threat.

    Args:
      logits_fn: a batch (B, H, W, C) -> logits (B, K); best a `jax.tree_util.Partial(apply,
        variables)`, whose weights are no part of the program.
      images: (N, H, W, C), floats in the box of the attacks' threats, [0, 1] by default; or uint8,
        which is divided by 255.
      labels: (N,) integers; for a `success` of your own any numbers (N, ...).
      attacks: by the names the report should use.
      key: example i uses fold_in(key, indices[i]) in every attack.
      targets: (N,) integers, a class for each image to go to, other than its label: the attacks
        stop there and nowhere else, and `Report.reached` counts the images that are there. For
        losses that are compared with other arrays, these, (N, ...).
      indices: (N,) integers that name the examples; None: 0 to N - 1.
      batch_size: images at once, all devices together; does not change the result.
      success: (output, label) -> bool: the model is wrong there. The default compares the largest
        logit with the label; with a detector it is 'wrong and not detected'. Attacks that stop at
        success have a field of the same name. With a success of your own, and a loss of your own
        in the attack, the model may return any arrays (B, ...); the checks that read logits are
        then left out, which `Report.warnings` says.
      threat: the worst case is under this threat. Attacks that have another one or none do not
        enter it, but for minimum-norm attacks whose threat differs in eps alone, whose images count
        up to this eps. None: the threat of the attacks if they share one, apart from those without;
        else every attack enters, under its own.
      levels: round the images of successful attacks to multiples of 1 / levels, 255 for 8 bits, and
        report how many of them still win (`Report.rounded`). Whether they are still in the ball is
        not asked. An attack that sees the rounding must have it inside the model: see `bpda`.
      journal: a folder for snapshots. After a kill the same call resumes from them and gives the
        same report. Every attack has its own, which another call finds if nothing that decides its
        result differs, the code of a loss included. Delete the folder when the report is safe;
        given a `Journal`, its `clear` deletes what was used.
      diagnose: look for what makes the numbers doubtful (`evaluation.diagnostics`); False: only for
        NaN in the attacks' losses and gradients, at no cost.
      progress: show progress bars.

    Raises:
      ValueError: unusable attacks, images, labels, model, key, batch size, levels or names, NaN
        logits on clean images, or a torn snapshot.
      RuntimeError: an attack left its ball or its box.

    >>> images, labels = np.float32([0.75, 0.25, 0.25, 0.5]).reshape(2, 1, 1, 2), [0, 1]
    >>> def model(images):  # two pixels, two logits
    ...     return images[:, 0, 0]
    >>> attacks = {"fgsm": rj.attacks.FGSM(rj.threats.Linf(0.2))}
    >>> key = jax.random.key(0)
    >>> found = rj.evaluation.evaluate(model, images, labels, attacks, key, diagnose=False)
    >>> found.clean, found.robust["fgsm"]
    (1.0, 0.5)
    """
    if not isinstance(attacks, Mapping):
        raise ValueError(
            "attacks must be a mapping from the names of the report to attacks, such as "
            f"{{'pgd': PGD()}}; got {attacks!r}"
        )
    for attack in attacks.values():
        check_attack(attack)
    reserved = {"clean", "worst_case", "index", "label", "prediction", "target"} & set(attacks)
    if reserved:
        raise ValueError(f"an attack cannot be named {', '.join(sorted(reserved))}")
    model, key, data, batch_size = check_request(
        logits_fn,
        key,
        images,
        labels,
        indices,
        batch_size,
        targets,
        list(attacks.values()),
        success,
    )
    if levels is not None:
        check_levels(levels, data.image)
    setting = Setting(model, key, success, batch_size, Ledger())
    clean = _clean(setting, data)
    ledger_of = _ledgers(journal, setting, data, clean)
    threat = common_threat(attacks) if threat is None else threat
    right, classes = ~clean.fooled, num_classes(model, data)
    table: dict[str, Any] = {"index": data.index, "label": data.label}
    if clean.logits is not None:
        table["prediction"] = clean.prediction
    if are_classes(data.target):
        table["target"] = data.target
    notes = diagnostics.of_model(setting, data, clean) if diagnose else []
    adversarial, stages, zero_gradient, over, rounded = {}, {}, {}, [], {}
    for name, attack in attacks.items():
        own = dataclasses.replace(setting, ledger=ledger_of(attack))
        verdict = _nothing(data, clean)
        if right.any():
            part = craft(attack, own, data[right], name if progress else None)
            for column, values in zip(verdict, part, strict=True):
                column[right] = values
            if diagnose:
                found, blind = diagnostics.of_attack(
                    attack, own, data[right], part, own.ledger.stages, len(data)
                )
                notes += [f"{name}: {text}" for text in found]
                if blind is not None:
                    zero_gradient[name] = blind
            else:
                notes += [f"{name}: {text}" for text in met_nan(own.ledger.stages)]
        counts = counted(attack, threat, classes, verdict.inside, verdict.distance)
        if counts is None:
            notes.append(f"{name}: {diagnostics.outside(attack, threat)}")
        else:
            over.append(name)
        broken = right & verdict.fooled
        table[name] = {
            "fooled": ~right | (verdict.fooled & verdict.inside),
            "counts": np.zeros(len(data), bool) if counts is None else broken & counts,
            "distance": verdict.distance,
            "stage": verdict.stage,
        }
        if clean.logits is not None:
            table[name]["prediction"] = verdict.prediction
        if are_classes(data.target):
            there = clean.prediction == data.target
            table[name]["reached"] = np.where(right, verdict.stage >= 0, there)
        if levels is not None:
            won = broken & verdict.inside
            survives = won & _rounded(setting, data, verdict.image, levels).fooled
            table[name]["survives"] = survives
            share = float(survives.sum() / won.sum()) if won.any() else None
            rounded[name] = {"levels": levels, "survive": share}
        adversarial[name] = verdict.image
        stages[name] = _table(own.ledger.stages, int(right.sum()), len(data))
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    found = accuracies(table, right, list(attacks), classes if are_classes(data.label) else 0)
    about = setting_of({"model": model}, key, data)
    return Report(
        clean=found["accuracy"]["clean"],
        robust={name: found["accuracy"][name] for name in attacks},
        worst_case=found["accuracy"]["worst_case"],
        worst_case_over=over,
        reached={
            name: float(table[name]["reached"].mean())
            for name in attacks
            if are_classes(data.target)
        },
        stderr=found["stderr"],
        per_class=found["per_class"],
        balanced=found["balanced"],
        rounded=rounded,
        zero_gradient=zero_gradient,
        warnings=notes,
        stages=stages,
        minimum_norm=[name for name, a in attacks.items() if isinstance(a, MinimumNorm)],
        setting=about,
        key=about["key"],
        examples=table,
        adversarial=adversarial,
        attacks={name: describe(attack) for name, attack in attacks.items()},
    )


def curve(
    logits_fn: Callable,
    images: Any,
    labels: Any,
    attack: Attack,
    eps: Sequence[float],
    key: jax.Array,
    *,
    indices: Any = None,
    batch_size: int | None = None,
    success: Success = fooled,
    journal: str | os.PathLike | Journal | None = None,
    progress: bool = False,
) -> dict[str, list[float]]:
    """Accuracy under one attack over radii of its threat, in one compilation.

    Args:
      attack: a minimum-norm attack is run once; another once for each radius. Give it no fixed
        step size then, so that its steps follow eps.
      eps: the radii; 0 gives the clean accuracy. An eps per feature keeps its proportions, and its
        largest entry becomes the radius; instead of an eps per example all get the same.
      logits_fn, images, labels, key, indices, batch_size, success, journal, progress: as for
        `evaluate`.

    Returns:
      {'eps': radii, 'accuracy': fractions, 'stderr': their standard errors}.

    Raises:
      ValueError: as for `evaluate`, a radius that is negative or NaN, or an attack without one.

    >>> images, labels = np.float32([0.75, 0.25, 0.25, 0.5]).reshape(2, 1, 1, 2), [0, 1]
    >>> def model(images):  # two pixels, two logits
    ...     return images[:, 0, 0]
    >>> attack, key = rj.attacks.FGSM(rj.threats.Linf(0.1)), jax.random.key(0)
    >>> found = rj.evaluation.curve(model, images, labels, attack, [0, 0.2, 0.3], key)
    >>> found["accuracy"]
    [1.0, 0.5, 0.0]
    """
    check_curve(attack)
    check_radii(eps)
    model, key, data, batch_size = check_request(
        logits_fn, key, images, labels, indices, batch_size, None, attack, success
    )
    setting = Setting(model, key, success, batch_size, Ledger())
    clean = _clean(setting, data)
    right, ledger_of = data[~clean.fooled], _ledgers(journal, setting, data, clean)
    distances = np.zeros((len(eps), len(data)))
    stages: list[Stage] = []

    def run(there, title):
        own = dataclasses.replace(setting, ledger=ledger_of(there))
        verdict = craft(there, own, right, title if progress else None)
        stages.extend(own.ledger.stages)
        return verdict

    once = isinstance(attack, MinimumNorm)
    if once and len(right):  # its eps may say where it starts: it stays
        distances[:, : len(right)] = run(attack, type(attack).__name__).distance
    for i, radius in enumerate(() if once or not len(right) else map(float, eps)):
        verdict = run(with_eps(attack, radius), f"eps {radius:g}")
        distances[i, : len(right)] = np.where(verdict.stage >= 0, 0, np.inf)
    for text in met_nan(stages):
        warnings.warn(text, UserWarning, stacklevel=2)
    return points(eps, distances)


def check_curve(attack: Attack, classes: int = 10) -> None:
    """Raise ValueError unless every stage of an attack has a radius that `curve` can change.

    >>> rj.evaluation.check_curve(rj.attacks.Spatial())
    Traceback (most recent call last):
    ValueError: a curve needs an attack with a radius, such as PGD, and Spatial has no threat...
    """
    check_attack(attack)
    if not own_threats(attack, classes):
        names = dict.fromkeys(type(leaf).__name__ for leaf in leaves(attack, classes))
        raise ValueError(
            f"a curve needs an attack with a radius, such as PGD, and {', '.join(names)} has no "
            "threat or has a stage without one"
        )


def zero_gradient(
    logits_fn: Callable,
    images: Any,
    labels: Any,
    attack: diagnostics.FollowsGradient,
    key: jax.Array,
    *,
    indices: Any = None,
    batch_size: int | None = None,
    success: Success = fooled,
) -> float:
    """The fraction of the images that the model gets right at which an attack has no gradient.

    Exactly zero, at the clean image: there sign(0) = 0 and an attack without a random start does
    not move at all. 0 where the model gets nothing right.

    Args:
      attack: one objective of a gradient attack; `PGD()` is the plain cross-entropy.
      logits_fn, images, labels, key, indices, batch_size, success: as for `evaluate`.

    Logits this large saturate the softmax:

    >>> images, labels = np.float32([0.75, 0.25]).reshape(1, 1, 1, 2), [0]
    >>> def model(images):
    ...     return 1e4 * images[:, 0, 0]
    >>> attack, key = rj.attacks.PGD(), jax.random.key(0)
    >>> rj.evaluation.zero_gradient(model, images, labels, attack, key)
    1.0
    """
    check_attack(attack)
    if not isinstance(attack, diagnostics.FollowsGradient):
        raise ValueError(f"{type(attack).__name__} follows no gradient; give one such as PGD()")
    model, key, data, batch_size = check_request(
        logits_fn, key, images, labels, indices, batch_size, None, attack, success
    )
    setting = Setting(model, key, success, batch_size, Ledger())
    right = data[~_clean(setting, data).fooled]
    return float(diagnostics.no_gradient(attack, setting, right).mean()) if len(right) else 0.0


def _clean(setting: Setting, data: Examples) -> Judgement:
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
        fooled=clean.fooled.copy(),
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
    return rows


def check_levels(levels: int, images: np.ndarray) -> None:
    """Raise ValueError unless pixels can be rounded to so many levels above 0."""
    check_number("levels", levels, 1)
    if images.min() < 0 or images.max() > 1:
        raise ValueError("levels divide pixels in [0, 1], and these images have others")


def _rounded(setting: Setting, data: Examples, images: np.ndarray, levels: int) -> Judgement:
    """Model outputs for images whose pixels are rounded to multiples of 1 / levels."""
    return judge(setting, data, np.round(images * np.float32(levels)) / np.float32(levels))


def _ledgers(
    journal: str | os.PathLike | Journal | None, setting: Setting, data: Examples, clean: Judgement
) -> Callable[[Attack], Ledger]:
    """The ledger of every attack: in the journal, under an address of all that decides its result.

    The address of an attack alone: what else is attacked, and by which name, does not enter it.
    """
    if journal is None:
        return lambda attack: Ledger()
    kept = journal if isinstance(journal, Journal) else Journal(journal)
    arrays = data.rows(), setting.key, jax.tree.leaves(setting.model), clean.logits
    about = fingerprint(arrays, None, ())

    def ledger_of(attack):
        numbers = [leaf for leaf in jax.tree.leaves(attack) if isinstance(leaf, ArrayLike)]
        text = [about, describe(attack)]
        return kept.ledger(fingerprint(numbers, text, programs([attack], setting, data)))

    return ledger_of
