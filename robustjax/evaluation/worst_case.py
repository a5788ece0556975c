"""The worst case over attacks: which attacks and images count, and the accuracies that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from robustjax.attacks._core.ensemble import leaves
from robustjax.attacks._core.iterative import MinimumNorm, largest_distance
from robustjax.threats import radius, with_radius
from robustjax.threats._trees import threats_of
from robustjax.typing import Attack, Threat


def common_threat(attacks: Mapping[str, Attack]) -> Threat | None:
    """The threat that all attacks with one share; None if they have several, or none has one.

    The eps of a minimum-norm attack says only what counts, so it has a say only if all are.
    """
    bounded = [a for a in attacks.values() if not isinstance(a, MinimumNorm)]
    found = threats_of(bounded) or threats_of(list(attacks.values()))
    return found[0] if found and all(same_threat(found[0], other) for other in found) else None


def same_threat(a: Threat, b: Threat) -> bool:
    """Whether two threats are of one type with equal fields, in float32."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(np.float32(x), np.float32(y)) for x, y in pairs)


def own_threats(attack: Attack, classes: int) -> list[Threat]:
    """The threats of an attack; none if one of its stages, on a model with K classes, has none."""
    stages = [threats_of(stage) for stage in leaves(attack, classes)]
    return [threat for found in stages for threat in found] if all(stages) else []


def counted(
    attack: Attack,
    threat: Threat | None,
    classes: int,
    inside: np.ndarray,
    distance: np.ndarray,
) -> np.ndarray | None:
    """Which images of an attack count in the worst case under a threat.

    Args:
      attack: counts if every stage has this threat, or if it is a minimum-norm attack and its
        threat differs in eps alone.
      threat: None: every attack counts.
      classes: K.
      inside: (N,) bool: the image is inside the attack's own threat.
      distance: (N,) of a minimum-norm attack.

    Returns:
      (N,) bool, or None: the attack is outside the threat.
    """
    own = own_threats(attack, classes)
    if threat is None or (own and all(same_threat(threat, other) for other in own)):
        return inside
    if not isinstance(attack, MinimumNorm) or any(np.ndim(t.eps) for t in (threat, attack.threat)):
        return None
    if not same_threat(threat, with_radius(attack.threat, radius(threat))):
        return None
    return np.isfinite(distance) & (distance <= largest_distance(float(radius(threat))))


def accuracies(
    table: Mapping[str, Any], names: Sequence[str], classes: int
) -> dict[str, dict[str, Any]]:
    """Accuracies of the clean images, under each attack and in the worst case.

    Args:
      table: 'label' and 'wrong' (N,), and per attack a dict of 'fooled' and 'counts', (N,) bool. Of
        a model that draws also 'seen' (N,), and both 'wrong' and 'seen' per attack: see `Report`.
      names: the attacks.
      classes: K; 0 where the labels are no classes, which leaves out what is per class.

    Returns:
      'accuracy', its 'stderr', 'per_class' and 'balanced', each a dict with the keys 'clean',
      'worst_case' and the attacks.
    """

    def stacked(column):
        rows = (table[name].get(column, table[name]["counts"]) for name in names)
        return np.stack([table.get(column, table["wrong"]), *rows])

    worst = stacked("seen").argmax(0)  # of equals the first, which are the clean images
    masks = {"clean": table["wrong"]}
    masks["worst_case"] = np.take_along_axis(stacked("wrong"), worst[None], 0)[0]
    for name in names:
        masks[name] = table[name].get("wrong", table[name]["fooled"])
    masks = {name: 1 - np.asarray(wrong, float) for name, wrong in masks.items()}
    rows = [table["label"] == k for k in range(classes)]
    per_class = (
        {}
        if not classes
        else {
            name: [float(mask[of].mean()) if of.any() else None for of in rows]
            for name, mask in masks.items()
        }
    )
    accuracy = {name: float(mask.mean()) for name, mask in masks.items()}
    return {
        "accuracy": accuracy,
        "stderr": {name: stderr(p, len(worst)) for name, p in accuracy.items()},
        "per_class": per_class,
        "balanced": {
            name: float(np.mean([p for p in values if p is not None]))
            for name, values in per_class.items()
        },
    }


def stderr(p: float, n: int) -> float:
    """The binomial standard error of a fraction."""
    return math.sqrt(p * (1 - p) / n)
