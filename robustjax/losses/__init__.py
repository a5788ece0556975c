"""Losses for one example. `NAMED` lists those of the form loss(output, target) by name.

They read the logits in whatever the model returns: see `output.logits_of`.
"""

from robustjax.losses.centers import center_pull as center_pull
from robustjax.losses.centers import gsce_logits as gsce_logits
from robustjax.losses.centers import lgm, mmc
from robustjax.losses.centers import mmlda as mmlda
from robustjax.losses.centers import sce_as_gsce as sce_as_gsce
from robustjax.losses.margin import (
    best_wrong,
    dlr,
    margin,
    soft_margin,
    targeted_dlr,
    targeted_margin,
)
from robustjax.losses.pair import mart as mart
from robustjax.losses.pair import trades as trades
from robustjax.losses.rejection import confidence_odds as confidence_odds
from robustjax.losses.rejection import rectified_odds as rectified_odds
from robustjax.losses.softmax import TemperedCrossEntropy as TemperedCrossEntropy
from robustjax.losses.softmax import brier, cross_entropy, kl, multi_target, rce, squared_error
from robustjax.losses.softmax import focal as focal
from robustjax.losses.softmax import smooth as smooth
from robustjax.spec import KINDS, Names
from robustjax.typing import Loss

GIVEN_TARGETS = {
    multi_target: "a pair (label, class)",
    kl: "reference logits (K,)",
    squared_error: "an array of the output's shape",
    targeted_dlr: "a pair (label, target class)",
    targeted_margin: "a pair (label, target class)",
}
"""What the losses that take no label compare the output with: the caller has to give it."""

PAIRED = (multi_target, targeted_dlr, targeted_margin)
"""Losses of (label, target class), maximised although they are targeted."""

__all__ = [
    "best_wrong",
    "brier",
    "cross_entropy",
    "dlr",
    "kl",
    "lgm",
    "margin",
    "mmc",
    "multi_target",
    "rce",
    "soft_margin",
    "squared_error",
    "targeted_dlr",
    "targeted_margin",
]

NAMED = KINDS[Loss] = Names(
    "loss",
    {name: globals()[name] for name in __all__}
    | {"tempered_cross_entropy": TemperedCrossEntropy(1.0)},
)
"""By the names of `robustjax.spec` and of config.json."""
