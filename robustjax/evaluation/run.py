"""`evaluate`, `curve`, `zero_gradient`: run attacks on what the model gets right, and count."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from robustjax.attacks._core.ensemble import with_eps
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
from robustjax.attacks._engine.inputs import Examples, are_classes, check_attack, check_request
from robustjax.attacks._engine.ledger import Ledger, Stage, met_nan
from robustjax.evaluation import diagnostics
from robustjax.evaluation.journal import Journal, fingerprint
from robustjax.evaluation.report import Report, check_radii, describe, points, stderr
from robustjax.typing import Attack


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
    journal: str | os.PathLike | None = None,
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
      journal: a folder for snapshots. After a kill the same call resumes from them and gives the
        same report. A call that differs in anything that decides the result, the code of a loss
        included, starts over. Delete the folder when the report is safe.
      diagnose: look for what makes the numbers doubtful (`evaluation.diagnostics`); False: only for
        NaN in the attacks' losses and gradients, at no cost.
      progress: show progress bars.

    Raises:
      ValueError: unusable attacks, images, labels, model, key, batch size or names, NaN logits on
        clean images, or a torn snapshot.
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
    setting = Setting(model, key, success, batch_size, Ledger())
    clean = _clean(setting, data)
    if journal is not None:
        journal = _folder(journal, setting, data, clean, attacks)
    right = ~clean.fooled
    table: dict[str, Any] = {"index": data.index, "label": data.label}
    if clean.logits is not None:
        table["prediction"] = clean.prediction
    if are_classes(data.target):
        table["target"] = data.target
    notes = diagnostics.of_model(setting, data, clean) if diagnose else []
    adversarial, stages, zero_gradient = {}, {}, {}
    for name, attack in attacks.items():
        ledger = Ledger() if journal is None else Journal(journal, name)
        own = dataclasses.replace(setting, ledger=ledger)
        verdict = _nothing(data, clean)
        if right.any():
            part = craft(attack, own, data[right], name if progress else None)
            for column, values in zip(verdict, part, strict=True):
                column[right] = values
            if diagnose:
                found, blind = diagnostics.of_attack(
                    attack, own, data[right], part, ledger.stages, len(data)
                )
                notes += [f"{name}: {text}" for text in found]
                if blind is not None:
                    zero_gradient[name] = blind
            else:
                notes += [f"{name}: {text}" for text in met_nan(ledger.stages)]
        table[name] = {
            "fooled": ~right | (verdict.fooled & verdict.inside),
            "distance": verdict.distance,
            "stage": verdict.stage,
        }
        if clean.logits is not None:
            table[name]["prediction"] = verdict.prediction
        if are_classes(data.target):
            there = clean.prediction == data.target
            table[name]["reached"] = np.where(right, verdict.stage >= 0, there)
        adversarial[name] = verdict.image
        stages[name] = _table(ledger.stages, int(right.sum()), len(data))
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    resists = right & ~np.any([table[name]["fooled"] for name in attacks], axis=0)
    accuracy = {"clean": right.mean(), "worst_case": resists.mean()}
    accuracy |= {name: 1 - table[name]["fooled"].mean() for name in attacks}
    return Report(
        clean=float(accuracy["clean"]),
        robust={name: float(accuracy[name]) for name in attacks},
        worst_case=float(accuracy["worst_case"]),
        reached={
            name: float(table[name]["reached"].mean())
            for name in attacks
            if are_classes(data.target)
        },
        stderr={name: stderr(p, len(data)) for name, p in accuracy.items()},
        zero_gradient=zero_gradient,
        warnings=notes,
        stages=stages,
        minimum_norm=[name for name, a in attacks.items() if isinstance(a, MinimumNorm)],
        key=jax.random.key_data(key).tolist(),
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
    progress: bool = False,
) -> dict[str, list[float]]:
    """Accuracy under one attack over radii of its threat, in one compilation.

    Args:
      attack: a minimum-norm attack is run once; another once for each radius. Give it no fixed
        step size then, so that its steps follow eps.
      eps: the radii; 0 gives the clean accuracy. An eps per feature keeps its proportions, and its
        largest entry becomes the radius; instead of an eps per example all get the same.
      logits_fn, images, labels, key, indices, batch_size, success, progress: as for `evaluate`.

    Returns:
      {'eps': radii, 'accuracy': fractions, 'stderr': their standard errors}.

    Raises:
      ValueError: as for `evaluate`, or a radius that is negative or NaN.

    >>> images, labels = np.float32([0.75, 0.25, 0.25, 0.5]).reshape(2, 1, 1, 2), [0, 1]
    >>> def model(images):  # two pixels, two logits
    ...     return images[:, 0, 0]
    >>> attack, key = rj.attacks.FGSM(rj.threats.Linf(0.1)), jax.random.key(0)
    >>> found = rj.evaluation.curve(model, images, labels, attack, [0, 0.2, 0.3], key)
    >>> found["accuracy"]
    [1.0, 0.5, 0.0]
    """
    check_attack(attack)
    check_radii(eps)
    model, key, data, batch_size = check_request(
        logits_fn, key, images, labels, indices, batch_size, None, attack, success
    )
    setting = Setting(model, key, success, batch_size, Ledger())
    right = data[~_clean(setting, data).fooled]
    once = isinstance(attack, MinimumNorm)
    distances = np.zeros((len(eps), len(data)))
    if once and len(right):  # its eps may say where it starts: it stays
        found = craft(attack, setting, right, type(attack).__name__ if progress else None)
        distances[:, : len(right)] = found.distance
    for i, radius in enumerate(() if once or not len(right) else map(float, eps)):
        title = f"eps {radius:g}" if progress else None
        verdict = craft(with_eps(attack, radius), setting, right, title)
        distances[i, : len(right)] = np.where(verdict.stage >= 0, 0, np.inf)
    for text in met_nan(setting.ledger.stages):
        warnings.warn(text, UserWarning, stacklevel=2)
    return points(eps, distances)


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


def _folder(journal, setting, data, clean, attacks) -> Path:
    """The snapshots' own folder: its name is made of all that decides the result."""
    about = {name: describe(attack) for name, attack in attacks.items()}
    numbers = [leaf for leaf in jax.tree.leaves(dict(attacks)) if isinstance(leaf, ArrayLike)]
    arrays = data.rows(), setting.key, jax.tree.leaves(setting.model), clean.logits, numbers
    return Path(journal) / fingerprint(arrays, about, programs(attacks.values(), setting, data))
