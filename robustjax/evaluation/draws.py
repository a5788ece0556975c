"""Evaluations of models that draw: probabilities of a wrong answer, and the model with one draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from robustjax.attacks._core.randomized import Randomized
from robustjax.attacks._engine.craft import Setting, Verdict, judge
from robustjax.attacks._engine.examples import Examples
from robustjax.attacks._engine.judgement import Judgement
from robustjax.checks import INF, checked
from robustjax.evaluation.worst_case import stderr

PARTED = 0.05
"""How far apart the accuracies with fixed and with fresh draws may be."""


@checked(host=True, wins=(0, INF), trials=(1, INF), deviations=(0, INF))
def wilson(wins: ArrayLike, trials: ArrayLike, deviations: float = 1.96) -> np.ndarray:
    """Wilson's interval for a probability: wins (...) of trials -> (2, ...), its two ends.

    Args:
      wins: how often it happened; of sums over trials of other probabilities, their interval is
        narrower.
      trials: how often it could have.
      deviations: half its width in standard deviations; 1.96 for 95 %.

    References: Wilson, "Probable inference, the law of succession, and statistical inference",
    1927.

    >>> rj.evaluation.wilson(8, 10).round(2).tolist()
    [0.49, 0.94]
    """
    n, z2 = np.asarray(trials, float), deviations**2
    p = np.asarray(wins) / n
    half = deviations * np.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    low, high = ((p + z2 / (2 * n) + side * half) / (1 + z2 / n) for side in (-1, 1))
    return np.clip(np.stack([np.minimum(low, p), np.maximum(high, p)]), 0, 1)  # but for rounding


def frozen(model: Callable) -> Callable:
    """A `Randomized` model with the one draw that it holds for all images, so deterministic."""
    return jax.tree_util.Partial(Randomized.__call__, model)


def clean_columns(setting: Setting, data: Examples, clean: Judgement) -> dict[str, np.ndarray]:
    """'wrong' and 'seen' of the clean images, as `attack_columns`."""
    return {"wrong": judge(setting, data, again=True).wrong, "seen": clean.wrong}


def attack_columns(
    setting: Setting,
    data: Examples,
    verdict: Verdict,
    usable: np.ndarray,
    counts: np.ndarray,
    clean: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """How probable wrong answers are on the images of an attack, from two sets of draws.

    Args:
      setting, data, verdict: of the attack.
      usable: (N,) bool: attacked, and inside the threat of the attack; elsewhere the clean image
        stands.
      counts: (N,) bool: so in the worst case.
      clean: `clean_columns`.

    Returns:
      'wrong' (N,), the fraction of wrong answers over draws that chose nothing, and 'seen' (N,),
      that over those draws that chose between the clean image and the attack's, by which the worst
      case chooses too.
    """
    final = judge(setting, data, verdict.image, again=True).wrong
    better = usable & (verdict.wrong > clean["seen"])
    return {
        "wrong": np.where(better, final, clean["wrong"]),
        "seen": np.where(better & counts, verdict.wrong, clean["seen"]),
    }


def compared(
    draws: Mapping[str, Any],
    fresh: Mapping[str, float],
    fixed: Mapping[str, float | None],
    n: int,
) -> dict[str, Any]:
    """'accuracy' of `Report.draws`.

    Args:
      draws: 'n' and 'vote'.
      fresh, fixed: the accuracies on n images with fresh draws and with a fixed one.
      n: the number of images.
    """
    trials = n if draws["vote"] else n * draws["n"]
    return {
        name: {
            "fresh": accuracy,
            "interval": wilson(accuracy * trials, trials).tolist(),
            "fixed": fixed.get(name),
        }
        for name, accuracy in fresh.items()
    }


def parted(found: Mapping[str, Any], n: int) -> list[str]:
    """Flags of attacks whose accuracies on n images with fresh draws and with a fixed one differ.

    Args:
      found: `Report.draws`.
      n: the number of images.
    """
    notes = []
    for name, row in found["accuracy"].items():
        fresh, fixed = row["fresh"], row["fixed"]
        if name in ("clean", "worst_case") or fixed is None:
            continue
        slack = max(PARTED, 3 * stderr(fresh, n))  # one draw decides about each image
        if fresh > fixed + slack:
            notes.append(
                f"{name}: it leaves {fresh:.1%} with fresh draws and {fixed:.1%} of the same model "
                "with one fixed draw, so the difference hangs on the draws: raise eot until it "
                "stops falling (Randomized(function, eot=20), or the field of the attack)"
            )
        elif fixed > fresh + slack:
            notes.append(
                f"{name}: it leaves {fixed:.1%} of the model with one fixed draw and {fresh:.1%} "
                "with fresh draws: a single draw masks gradients, so quote the second number"
            )
    return notes
