"""`evaluate`: run attacks on what the model gets right, and count."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from robustjax import parallel
from robustjax.attacks._core.iterative import MinimumNorm
from robustjax.attacks._core.randomized import Randomized
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._engine.examples import Examples, are_classes
from robustjax.attacks._engine.inputs import check_attack, check_request, check_surrogate
from robustjax.attacks._engine.judgement import Judgement, judge
from robustjax.attacks._engine.layout import layout_of
from robustjax.attacks._engine.ledger import Ledger
from robustjax.attacks._engine.model import num_classes
from robustjax.attacks._engine.setting import Setting, check_draws, verdict_draws
from robustjax.checks import check_number, checked, in_body
from robustjax.config import encode
from robustjax.evaluation import diagnostics, model_diagnostics
from robustjax.evaluation.attacked import attacked, clean_of, ledgers
from robustjax.evaluation.draws import attack_columns, clean_columns, compared, frozen, parted
from robustjax.evaluation.journal import Journal
from robustjax.evaluation.report import Report, describe
from robustjax.evaluation.setting import setting_of
from robustjax.evaluation.worst_case import accuracies, common_threat
from robustjax.typing import Attack, Threat


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
    layout = layout_of(images)
    attacks = {name: layout.attack(attack) for name, attack in attacks.items()}
    threat = layout.attack(threat)
    images, logits_fn, surrogate = (
        layout.pack(images),
        layout.model(logits_fn),
        layout.model(surrogate),
    )
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
    drawn = isinstance(model, Randomized)
    if vote and (success is not fooled or not num_classes(model, data) or not drawn):
        raise ValueError("a vote is over the classes that a Randomized model predicts")
    draws = check_draws(draws, model)
    parallel.check_same({"votes": vote, "levels": levels, "threats": threat, "diagnose": diagnose})
    surrogate = check_surrogate(surrogate, model, data, success)
    setting = Setting(model, key, success, batch_size, Ledger(), draws, vote, surrogate)
    clean = clean_of(setting, data)
    ledger_of = ledgers(journal, setting, data, clean)
    threat = common_threat(attacks) if threat is None else threat
    right, classes = ~clean.fooled, num_classes(model, data) if are_classes(data.label) else 0
    table: dict[str, Any] = {"index": data.index, "label": data.label, "wrong": clean.wrong}
    if clean.logits is not None:
        table["prediction"] = clean.prediction
    if are_classes(data.target):
        table["target"] = data.target
    if drawn:
        table |= clean_columns(setting, data, clean)
    k, tried = num_classes(model, data), attacks.values()
    steep = threat if any(diagnostics.differentiates(attack, k) for attack in tried) else None
    notes = model_diagnostics.of_model(setting, data, clean, steep) if diagnose else []
    outcomes = {}
    for name, attack in attacks.items():
        own = dataclasses.replace(setting, ledger=ledger_of(attack))
        title = name if progress else None
        outcomes[name] = found = attacked(attack, own, data, clean, threat, diagnose, title)
        table[name] = found.row
        if drawn:
            usable = right & found.verdict.inside
            table[name] |= attack_columns(setting, data, found.verdict, usable, found.counts, table)
        if levels is not None:
            survives = _rounded(setting, data, found.verdict.image, levels).fooled
            table[name]["survives"] = survives & found.won
        notes += [f"{name}: {text}" for text in found.notes]
    if diagnose:
        under = {name: o for name, o in outcomes.items() if o.enters}
        notes += diagnostics.side_by_side(
            {name: o.won for name, o in under.items()},
            {name: o.stages for name, o in under.items()},
        )
    found = accuracies(table, list(attacks), classes)
    fixed: dict[str, float] = {}
    if drawn and diagnose:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # they are those of the model as it is
            same = evaluate(
                frozen(model),
                images,
                labels,
                attacks,
                key,
                targets=targets,
                indices=indices,
                batch_size=batch_size,
                success=success,
                surrogate=surrogate,
                threat=threat,
                journal=journal,
                diagnose=False,
                progress=progress,
            )
        fixed = same.robust | {"clean": same.clean, "worst_case": same.worst_case}
    parts: dict[str, Any] = {}
    if drawn:
        parts = {"n": verdict_draws(setting), "vote": vote}
        parts["accuracy"] = compared(parts, found["accuracy"], fixed, len(data))
        notes += parted(parts, len(data))
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    models = {"model": model} if surrogate is None else {"model": model, "surrogate": surrogate}
    about = setting_of(models, key, data)
    if success is not fooled:
        about["success"] = encode(success)
    return Report(
        clean=found["accuracy"]["clean"],
        robust={name: found["accuracy"][name] for name in attacks},
        worst_case=found["accuracy"]["worst_case"],
        worst_case_over=[name for name, outcome in outcomes.items() if outcome.enters],
        reached={
            name: float(table[name]["reached"].mean())
            for name in attacks
            if are_classes(data.target)
        },
        stderr=found["stderr"],
        per_class=found["per_class"],
        balanced=found["balanced"],
        rounded={
            name: {"levels": levels, "survive": _share(table[name]["survives"], outcome.won)}
            for name, outcome in outcomes.items()
            if levels is not None
        },
        zero_gradient={
            name: outcome.blind for name, outcome in outcomes.items() if outcome.blind is not None
        },
        draws=parts,
        warnings=notes,
        stages={name: outcome.stages for name, outcome in outcomes.items()},
        minimum_norm=[name for name, a in attacks.items() if isinstance(a, MinimumNorm)],
        setting=about,
        key=about["key"],
        examples=table,
        adversarial={
            name: layout.unpack(outcome.verdict.image) for name, outcome in outcomes.items()
        },
        attacks={name: describe(attack) for name, attack in attacks.items()},
    )


def check_levels(levels: int, images: np.ndarray) -> None:
    """Raise ValueError unless pixels can be rounded to so many levels above 0."""
    check_number("levels", levels, 1)
    if images.min() < 0 or images.max() > 1:
        raise ValueError("levels divide pixels in [0, 1], and these images have others")


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None


def _rounded(setting: Setting, data: Examples, images: np.ndarray, levels: int) -> Judgement:
    """Model outputs for images whose pixels are rounded to multiples of 1 / levels."""
    return judge(setting, data, np.round(images * np.float32(levels)) / np.float32(levels))
