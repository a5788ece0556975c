"""Losses for one example: (output, target) -> scalar, the model's output first.

Each reads the logits from the model's output (`outputs.logits_of`) and declares its kind of target
(`compares_with`). `NAMED` lists the losses that the command line and config.json know.
"""

from __future__ import annotations

from robustjax.losses.centers import center_pull, gsce_logits, lgm, mmc, mmlda, sce_as_gsce
from robustjax.losses.compared import compared_with, compares_with
from robustjax.losses.margin import (
    best_wrong,
    dlr,
    margin,
    soft_margin,
    targeted_dlr,
    targeted_margin,
)
from robustjax.losses.pair import mart, trades
from robustjax.losses.rejection import confidence_odds, rectified_odds
from robustjax.losses.softmax import (
    TemperedCrossEntropy,
    brier,
    cross_entropy,
    focal,
    kl,
    multi_target,
    rce,
    smooth,
    squared_error,
)
from robustjax.losses.tasks import (
    absolute_error,
    binary_cross_entropy,
    binary_margin,
    pixel_cross_entropy,
)
from robustjax.names import KINDS, Names
from robustjax.typing import Loss

NAMED: Names[Loss] = Names(
    "loss",
    {
        "absolute_error": absolute_error,
        "best_wrong": best_wrong,
        "binary_cross_entropy": binary_cross_entropy,
        "binary_margin": binary_margin,
        "brier": brier,
        "cross_entropy": cross_entropy,
        "dlr": dlr,
        "kl": kl,
        "lgm": lgm,
        "margin": margin,
        "mmc": mmc,
        "multi_target": multi_target,
        "pixel_cross_entropy": pixel_cross_entropy,
        "rce": rce,
        "soft_margin": soft_margin,
        "squared_error": squared_error,
        "targeted_dlr": targeted_dlr,
        "targeted_margin": targeted_margin,
        "tempered_cross_entropy": TemperedCrossEntropy(1.0),
    },
)
"""The losses (output, target) -> scalar by name, for `robustjax.spec` and config.json."""
KINDS[Loss] = NAMED

__all__ = [
    "NAMED",
    "TemperedCrossEntropy",
    "absolute_error",
    "best_wrong",
    "binary_cross_entropy",
    "binary_margin",
    "brier",
    "center_pull",
    "compared_with",
    "compares_with",
    "confidence_odds",
    "cross_entropy",
    "dlr",
    "focal",
    "gsce_logits",
    "kl",
    "lgm",
    "margin",
    "mart",
    "mmc",
    "mmlda",
    "multi_target",
    "pixel_cross_entropy",
    "rce",
    "rectified_odds",
    "sce_as_gsce",
    "smooth",
    "soft_margin",
    "squared_error",
    "targeted_dlr",
    "targeted_margin",
    "trades",
]
