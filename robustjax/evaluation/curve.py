"""`curve`: the accuracy under one attack over the radii of its threat."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from robustjax import parallel
from robustjax.attacks._core.ensemble import leaves, with_eps
from robustjax.attacks._core.iterative import MinimumNorm
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._engine.craft import craft
from robustjax.attacks._engine.inputs import check_attack, check_request, check_surrogate
from robustjax.attacks._engine.layout import layout_of
from robustjax.attacks._engine.ledger import Ledger, Stage, met_nan
from robustjax.attacks._engine.setting import Setting
from robustjax.checks import checked, in_body
from robustjax.evaluation.attacked import clean_of, ledgers
from robustjax.evaluation.journal import Journal
from robustjax.evaluation.report import check_radii, points
from robustjax.evaluation.worst_case import own_threats
from robustjax.typing import Attack
from robustjax.warn import warn


@checked(attack=in_body)
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
    surrogate: Callable | None = None,
    journal: str | os.PathLike | Journal | None = None,
    progress: bool = False,
) -> dict[str, list[float]]:
    """Accuracy under one attack over radii of its threat, in one compilation.

    A `Randomized` model has an image wrong where most of 20 draws are.

    Args:
      attack: a minimum-norm attack is run once; another once for each radius. Give it no fixed
        step size then, so that its steps follow eps.
      eps: the radii; 0 gives the clean accuracy. An eps per feature keeps its proportions, and its
        largest entry becomes the radius; instead of an eps per example all get the same.
      logits_fn, images, labels, key, indices, batch_size, success, surrogate, journal, progress: as
        for `evaluate`.

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
    layout = layout_of(images)
    attack, images, logits_fn = layout.attack(attack), layout.pack(images), layout.model(logits_fn)
    model, key, data, batch_size = check_request(
        logits_fn, key, images, labels, indices, batch_size, None, attack, success
    )
    parallel.check_same({"eps": [float(radius) for radius in eps]})
    surrogate = check_surrogate(layout.model(surrogate), model, data, success)
    setting = Setting(model, key, success, batch_size, Ledger(), surrogate=surrogate)
    clean = clean_of(setting, data)
    right, ledger_of = data[~clean.fooled], ledgers(journal, setting, data, clean)
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
        warn(text)
    return points(eps, distances)


@checked(attack=in_body)
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
