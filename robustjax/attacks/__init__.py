"""Attacks: each crafts one adversarial example; `perturb` runs one over any number of images."""

from robustjax.attacks.bpda import bpda
from robustjax.attacks.crafting import perturb
from robustjax.attacks.ensemble import (
    Ensemble,
    MultiTargeted,
    Restarts,
    WorstOf,
    with_eps,
    worst_of_losses,
)
from robustjax.attacks.gradient import (
    BIM,
    DIM,
    FGSM,
    ILCM,
    MIFGSM,
    NIFGSM,
    PGD,
    RFGSM,
    SINIFGSM,
    TIM,
    MultiTargetedPGD,
)
from robustjax.attacks.iterative import Iterative, MinimumNorm
from robustjax.attacks.randomized import Randomized
from robustjax.attacks.registry import names, parse
from robustjax.attacks.rules import Adam, Momentum, Nesterov, Steepest
from robustjax.attacks.starts import Corner, Gaussian, OutputDiversified, Uniform, Zero
from robustjax.attacks.transforms import DiverseInput, ScaleInvariant, TranslationInvariant

__all__ = [
    "BIM",
    "DIM",
    "FGSM",
    "ILCM",
    "MIFGSM",
    "NIFGSM",
    "PGD",
    "RFGSM",
    "SINIFGSM",
    "TIM",
    "Adam",
    "Corner",
    "DiverseInput",
    "Ensemble",
    "Gaussian",
    "Iterative",
    "MinimumNorm",
    "Momentum",
    "MultiTargeted",
    "MultiTargetedPGD",
    "Nesterov",
    "OutputDiversified",
    "Randomized",
    "Restarts",
    "ScaleInvariant",
    "Steepest",
    "TranslationInvariant",
    "Uniform",
    "WorstOf",
    "Zero",
    "bpda",
    "names",
    "parse",
    "perturb",
    "with_eps",
    "worst_of_losses",
]
