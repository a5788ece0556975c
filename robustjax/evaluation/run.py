"""Robust evaluation: accuracy under each attack and under all of them, and what to distrust."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks.crafting import Ledger, Setting, craft, judge
from robustjax.attacks.ensemble import leaves, with_eps
from robustjax.attacks.examples import Examples, check_request, num_classes, one_example
from robustjax.attacks.success import fooled
from robustjax.attacks.tiles import over_tiles
from robustjax.config import encode
from robustjax.evaluation.report import Report
from robustjax.typing import Attack

ZERO_GRADIENT_LIMIT = 0.01
"""A larger fraction of examples without a gradient makes the accuracy untrustworthy."""


@runtime_checkable
class FollowsGradient(Protocol):
    """An attack whose gradient and travel can be diagnosed."""

    reach: Any

    def aim(self, logits_fn: Callable, key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        """The target the attack chooses."""

    def gradient(self, logits_fn: Callable, x: jax.Array, target: Any) -> jax.Array:
        """The direction it ascends in."""


def evaluate(
    logits_fn: Callable,
    images: Any,
    labels: Any,
    attacks: Mapping[str, Attack],
    key: jax.Array,
    *,
    indices: Any = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Report:
    """Clean, per-attack and worst-case accuracy, with the diagnostics that make them credible.

    Only images that the model gets right are attacked. Every returned image is checked to be
    finite, in [0, 1] and in its ball before it counts.

    Args:
      logits_fn: a batch (B, H, W, C) -> logits (B, K); best a `jax.tree_util.Partial(apply,
        variables)`, whose weights are no part of the program.
      images: (N, H, W, C), floats in [0, 1] or uint8.
      labels: (N,) integers.
      attacks: by the names the report should use.
      key: example i uses fold_in(key, indices[i]) in every attack.
      indices: (N,) integers that name the examples; None: 0 to N - 1.
      batch_size: images per tile, all devices together; does not change the result.
      progress: show progress bars.

    Raises:
      ValueError: unusable images, labels, model, key, batch size or attack names, or NaN logits on
        clean images.
      RuntimeError: an attack left its ball or the pixel box.
    """
    if not isinstance(attacks, Mapping):
        raise ValueError(
            "attacks must be a mapping from the names of the report to attacks, such as "
            f"{{'pgd': PGD()}}; got {attacks!r}"
        )
    reserved = {"clean", "worst_case", "index", "label", "prediction"} & set(attacks)
    if reserved:
        raise ValueError(f"an attack cannot be named {', '.join(sorted(reserved))}")
    model, key, data, batch_size = check_request(
        logits_fn, key, images, labels, indices, batch_size
    )
    setting = Setting(model, key, fooled, batch_size, Ledger())
    clean = _clean_predictions(setting, data)
    correct = clean == data.label
    table: dict[str, Any] = {"index": data.index, "label": data.label, "prediction": clean}
    adversarial, zero_gradient, notes = {}, {}, []
    for name, attack in attacks.items():
        notes += [f"{name}: {note}" for note in _unreachable(attack)]
        x_adv, prediction, distance = data.image.copy(), clean.copy(), np.zeros(len(data))
        if correct.any():
            attacked, title = data[correct], name if progress else None
            verdict = craft(attack, setting, attacked, title)
            x_adv[correct], distance[correct] = verdict.image, verdict.distance
            prediction[correct] = verdict.prediction
            resists = verdict.stage < 0
            zero = [
                _zero_gradient(leaf, model, key, attacked, x_adv[correct], resists, batch_size)
                for leaf in leaves(attack, num_classes(model, data))
                if isinstance(leaf, FollowsGradient)
            ]
            if zero:
                zero_gradient[name] = max(zero)
        table[name] = {
            "fooled": prediction != data.label,
            "prediction": prediction,
            "distance": distance,
        }
        adversarial[name] = x_adv
    for name, fraction in zero_gradient.items():
        if fraction > ZERO_GRADIENT_LIMIT:
            notes.append(_masked(name, fraction))
            warnings.warn(notes[-1], UserWarning, stacklevel=2)
    resists_all = correct & ~np.any([table[name]["fooled"] for name in attacks], axis=0)
    accuracy = {"clean": correct.mean(), "worst_case": resists_all.mean()}
    accuracy |= {name: 1 - table[name]["fooled"].mean() for name in attacks}
    return Report(
        clean=float(accuracy["clean"]),
        robust={name: float(accuracy[name]) for name in attacks},
        worst_case=float(accuracy["worst_case"]),
        stderr={name: _stderr(p, len(data)) for name, p in accuracy.items()},
        zero_gradient=zero_gradient,
        warnings=notes,
        examples=table,
        adversarial=adversarial,
        attacks={name: _describe(attack) for name, attack in attacks.items()},
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
    progress: bool = False,
) -> dict[str, list[float]]:
    """Accuracy under one attack over radii of its threat, in one compilation.

    Args:
      eps: the radii; 0 gives the clean accuracy.
      logits_fn, images, labels, attack, key, indices, batch_size, progress: as for `evaluate`. Give
        the attack no fixed step size, so that its steps follow eps.

    Returns:
      {'eps': radii, 'accuracy': fractions, 'stderr': their standard errors}.
    """
    model, key, data, batch_size = check_request(
        logits_fn, key, images, labels, indices, batch_size
    )
    setting = Setting(model, key, fooled, batch_size, Ledger())
    attacked = data[_clean_predictions(setting, data) == data.label]
    accuracy = []
    for radius in map(float, eps):
        resists = 0
        if len(attacked):
            title = f"eps {radius:g}" if progress else None
            verdict = craft(with_eps(attack, radius), setting, attacked, title)
            resists = np.sum(verdict.stage < 0)
        accuracy.append(float(resists / len(data)))
    return {
        "eps": [float(radius) for radius in eps],
        "accuracy": accuracy,
        "stderr": [_stderr(p, len(data)) for p in accuracy],
    }


def _clean_predictions(setting: Setting, data: Examples) -> np.ndarray:
    prediction, _ = judge(setting, data)
    if (prediction < 0).any():
        raise ValueError(f"the model's logits are NaN on {np.sum(prediction < 0)} clean images")
    return prediction


def _zero_gradient(attack, model, key, data, x_adv, resists, batch_size) -> float:
    rows = {"row": data.rows(), "x_adv": x_adv}
    at_clean, at_end = over_tiles(_zero_gradient_one, (attack, model, key), rows, batch_size)
    return float(np.mean(at_clean | (at_end & resists)))


def _zero_gradient_one(attack, model, key, rows):
    row, logits_fn = rows["row"], one_example(model)
    key = jax.random.fold_in(key, row["index"])
    target = attack.aim(logits_fn, key, row["image"], row["label"])
    return tuple(
        jnp.all(attack.gradient(logits_fn, x, target) == 0) for x in (row["image"], rows["x_adv"])
    )


def _masked(name: str, fraction: float) -> str:
    return (
        f"{name}: the loss gradient is exactly zero at {fraction:.1%} of the attacked images, so "
        "the attack is blind there and its accuracy says nothing about robustness (masked "
        "gradients); try a margin loss (PGD(loss=margin)) or an attack without gradients"
    )


def _unreachable(attack: Attack) -> list[str]:
    return [
        f"all steps together travel {float(leaf.reach):.2g} eps, so parts of the ball are out of "
        "reach from some starts"
        for leaf in leaves(attack, 2)
        if isinstance(leaf, FollowsGradient) and leaf.reach < 1 - 1e-6
    ]


def _describe(attack: Attack) -> Any:
    return encode(attack) if dataclasses.is_dataclass(attack) else repr(attack)


def _stderr(p: float, n: int) -> float:
    return math.sqrt(p * (1 - p) / n)
