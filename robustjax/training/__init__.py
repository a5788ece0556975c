"""Adversarial training: methods, the per-device step and the host loop."""

from robustjax.training.loop import Result, Terminated, fit, threat_of, with_threat
from robustjax.training.methods import (
    ALP,
    AWP,
    GSCE,
    LGM,
    LLR,
    MART,
    METHODS,
    MMC,
    MMLDA,
    PGDAT,
    RCE,
    SAT,
    SCE,
    SCORE,
    TRADES,
    UAT,
    AVmixup,
    Center,
    Free,
    Method,
    Natural,
)
from robustjax.training.optimizers import Optimizer
from robustjax.training.recipes import MMC_RECIPE, RCE_RECIPE, RECIPES
from robustjax.training.schedules import SCHEDULES
from robustjax.training.state import TrainState
from robustjax.training.step import Recipe

__all__ = [
    "ALP",
    "AWP",
    "GSCE",
    "LGM",
    "LLR",
    "MART",
    "METHODS",
    "MMC",
    "MMC_RECIPE",
    "MMLDA",
    "PGDAT",
    "RCE",
    "RCE_RECIPE",
    "RECIPES",
    "SAT",
    "SCE",
    "SCHEDULES",
    "SCORE",
    "TRADES",
    "UAT",
    "AVmixup",
    "Center",
    "Free",
    "Method",
    "Natural",
    "Optimizer",
    "Recipe",
    "Result",
    "Terminated",
    "TrainState",
    "fit",
    "threat_of",
    "with_threat",
]
