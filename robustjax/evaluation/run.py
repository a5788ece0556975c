"""`evaluate`: run attacks on what the model gets right, and count."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from robustjax import parallel
from robustjax.attacks._core.iterative import MinimumNorm
from robustjax.attacks._core.randomized import Randomized
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._engine.inputs import check_attack, check_request, check_surrogate
from robustjax.attacks._engine.layout import Layout, layout_of
from robustjax.attacks._engine.ledger import Ledger
from robustjax.attacks._engine.model import num_classes
from robustjax.attacks._engine.setting import Setting, check_draws, verdict_draws
from robustjax.checks import check_number, checked, in_body
from robustjax.config import encode
from robustjax.evaluation.draws import compared, parted
from robustjax.evaluation.journal import Journal
from robustjax.evaluation.measurement import Measurement, Request, measure
from robustjax.evaluation.report import Report, describe
from robustjax.evaluation.setting import setting_of
from robustjax.evaluation.worst_case import common_threat
from robustjax.typing import Attack, Threat
from robustjax.warn import warn


@checked(attacks=in_body)
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
    surrogate: Callable | None = None,
    threat: Threat | None = None,
    levels: int | None = None,
    draws: int | None = None,
    vote: bool = False,
    journal: str | os.PathLike | Journal | None = None,
    diagnose: bool = True,
    progress: bool = False,
) -> Report:
    """Clean, per-attack and worst-case accuracy, with the diagnostics that make them credible.

    Only images that the model gets right are attacked. Every returned image is checked to be
    finite, in its box and in its ball before it counts; a minimum-norm attack counts where its
    distance is at most the eps of its threat. Of several processes each attacks its share, and all
    return the whole report: see `attacks.perturb`.

    Args:
      logits_fn: a batch (B, H, W, C) -> logits (B, K); best a `jax.tree_util.Partial(apply,
        variables)`, whose weights are no part of the program.
      images: (N, H, W, C), floats in the box of the attacks' threats, [0, 1] by default; or uint8,
        which is divided by 255. Or inputs of any other shape: see `attacks.perturb`.
      labels: (N,) integers; for a `success` of your own any numbers (N, ...).
      attacks: by the names the report should use.
      key: example i uses fold_in(key, indices[i]) in every attack.
      targets: (N,) integers, a class for each image to go to, other than its label: the attacks
        stop there and nowhere else, and `Report.reached` counts the images that are there. For
        losses that are compared with other arrays, these, (N, ...).
      indices: (N,) integers that name the examples; None: 0 to N - 1.
      batch_size: the most images at once, all devices together: see `attacks.perturb`.
      success: (output, label) -> bool: the model is wrong there. The default compares the largest
        logit with the label; with a detector it is 'wrong and not detected'. Attacks that stop at
        success have a field of the same name. With a success of your own, and a loss of your own
        in the attack, the model may return any arrays (B, ...); the checks that read logits are
        then left out, which `Report.warnings` says.
      surrogate: another model of these images and classes, which the attacks see instead: the same
        one in bfloat16, or another network. Verdicts are `logits_fn`'s alone, and the rows of
        `Report.stages` say on how many images the surrogate's was another one ('differed').
      threat: the worst case is under this threat. Attacks that have another one or none do not
        enter it, but for minimum-norm attacks whose threat differs in eps alone, whose images count
        up to this eps. None: the threat of the attacks if they share one, apart from those without;
        else every attack enters, under its own.
      levels: round the images of successful attacks to multiples of 1 / levels, 255 for 8 bits, and
        report how many of them still win (`Report.rounded`). Whether they are still in the ball is
        not asked. An attack that sees the rounding must have it inside the model: see `bpda`.
      draws: how often a `Randomized` model is asked about each image; None: 20. Accuracies are then
        mean probabilities of a right answer. An image is attacked if most answers are right, and an
        attack has won where most are wrong. So many draws choose between stages and attacks, and
        as many others make the numbers.
      vote: the model's answer is the class of most draws, of `draws` each time.
      journal: a folder for snapshots. After a kill the same call resumes from them and gives the
        same report. Every attack has its own, which another call finds if nothing that decides its
        result differs, the code of a loss included. Delete the folder when the report is safe;
        given a `Journal`, its `clear` deletes what was used.
      diagnose: look for what makes the numbers doubtful (`evaluation.diagnostics`), which includes
        attacks on a `Randomized` model with a fixed draw; False: only for NaN in the attacks'
        losses and gradients, at no cost.
      progress: show progress bars.

    Raises:
      ValueError: unusable attacks, images, labels, model, key, batch size, levels or names, NaN
        logits on clean images, a torn snapshot, or processes that were given different arguments.
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
    check_names(attacks)
    layout = layout_of(images)
    attacks = {name: layout.attack(attack) for name, attack in attacks.items()}
    threat = layout.attack(threat)
    model, key, data, batch_size = check_request(
        layout.model(logits_fn),
        key,
        layout.pack(images),
        labels,
        indices,
        batch_size,
        targets,
        list(attacks.values()),
        success,
    )
    if levels is not None:
        check_levels(levels, data.image)
    drawn = isinstance(model, Randomized)
    if vote and (success is not fooled or not num_classes(model, data) or not drawn):
        raise ValueError("a vote is over the classes that a Randomized model predicts")
    draws = check_draws(draws, model)
    parallel.check_same({"votes": vote, "levels": levels, "threats": threat, "diagnose": diagnose})
    surrogate = check_surrogate(layout.model(surrogate), model, data, success)
    threat = common_threat(attacks) if threat is None else threat
    setting = Setting(model, key, success, batch_size, Ledger(), draws, vote, surrogate)
    asked = Request(setting, data, attacks, threat, levels, journal, diagnose, progress)
    found = measure(asked)
    parts, notes = _over_draws(asked, found) if drawn else ({}, [])
    report = _report(asked, found, parts, notes, layout)
    for note in report.warnings:
        warn(note)
    return report


def _over_draws(asked: Request, found: Measurement) -> tuple[dict[str, Any], list[str]]:
    """`Report.draws` of a model that draws, and what it gives to doubt."""
    n, fixed = len(asked.data), {}
    if asked.diagnose:
        fixed = measure(asked.with_one_draw()).accuracies["accuracy"]
    draws = {"n": verdict_draws(asked.setting), "vote": asked.setting.vote}
    draws["accuracy"] = compared(draws, found.accuracies["accuracy"], fixed, n)
    return draws, parted(draws, n)


def _report(
    asked: Request,
    found: Measurement,
    draws: dict[str, Any],
    notes: list[str],
    layout: Layout,
) -> Report:
    setting, data, outcomes = asked.setting, asked.data, found.outcomes
    models = {"model": setting.model}
    if setting.surrogate is not None:
        models["surrogate"] = setting.surrogate
    about = setting_of(models, setting.key, data)
    if setting.success is not fooled:
        about["success"] = encode(setting.success)
    accuracy = found.accuracies["accuracy"]
    return Report(
        clean=accuracy["clean"],
        robust={name: accuracy[name] for name in outcomes},
        worst_case=accuracy["worst_case"],
        worst_case_over=[name for name, outcome in outcomes.items() if outcome.enters],
        reached={
            name: float(outcome.row["reached"].mean())
            for name, outcome in outcomes.items()
            if "reached" in outcome.row
        },
        stderr=found.accuracies["stderr"],
        per_class=found.accuracies["per_class"],
        balanced=found.accuracies["balanced"],
        rounded={
            name: {"levels": asked.levels, "survive": _share(outcome.row["survives"], outcome.won)}
            for name, outcome in outcomes.items()
            if asked.levels is not None
        },
        zero_gradient={
            name: outcome.blind for name, outcome in outcomes.items() if outcome.blind is not None
        },
        draws=draws,
        warnings=found.notes + notes,
        stages={name: outcome.stages for name, outcome in outcomes.items()},
        minimum_norm=[name for name, a in asked.attacks.items() if isinstance(a, MinimumNorm)],
        setting=about,
        key=about["key"],
        examples=found.table,
        adversarial={
            name: layout.unpack(outcome.verdict.image) for name, outcome in outcomes.items()
        },
        attacks={name: describe(attack) for name, attack in asked.attacks.items()},
    )


def check_names(attacks: Any) -> None:
    """Raise ValueError unless they are attacks, by names that are free."""
    if not isinstance(attacks, Mapping):
        raise ValueError(
            "attacks must be a mapping from the names of the report to attacks, such as "
            f"{{'pgd': PGD()}}; got {attacks!r}"
        )
    for attack in attacks.values():
        check_attack(attack)
    reserved = {"clean", "worst_case", "index", "label", "prediction", "target", "wrong", "seen"}
    reserved &= set(attacks)
    if reserved:
        raise ValueError(f"an attack cannot be named {', '.join(sorted(reserved))}")


def check_levels(levels: int, images: np.ndarray) -> None:
    """Raise ValueError unless pixels can be rounded to so many levels above 0."""
    check_number("levels", levels, 1)
    if images.min() < 0 or images.max() > 1:
        raise ValueError("levels divide pixels in [0, 1], and these images have others")


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None
