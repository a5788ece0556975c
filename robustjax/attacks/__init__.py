"""Attacks: each crafts one adversarial example; `perturb` runs one over any number of images."""

from robustjax.attacks.carlini_wagner import CarliniWagnerL2, CarliniWagnerLinf
from robustjax.attacks.crafting import perturb
from robustjax.attacks.ead import EAD
from robustjax.attacks.ensemble import (
    Ensemble,
    MultiTargeted,
    Restarts,
    WorstOf,
    with_eps,
    worst_of_losses,
)
from robustjax.attacks.gradient import BIM, FGSM, ILCM, MIFGSM, PGD, RFGSM
from robustjax.attacks.iterative import Iterative, MinimumNorm
from robustjax.attacks.jsma import JSMA
from robustjax.attacks.penalty import Started
from robustjax.attacks.randomized import Randomized
from robustjax.attacks.registry import names, parse
from robustjax.attacks.rules import Adam, Momentum, Steepest
from robustjax.attacks.starts import Corner, Gaussian, Uniform, Zero

__all__ = [
    "BIM",
    "EAD",
    "FGSM",
    "ILCM",
    "JSMA",
    "MIFGSM",
    "PGD",
    "RFGSM",
    "Adam",
    "CarliniWagnerL2",
    "CarliniWagnerLinf",
    "Corner",
    "Ensemble",
    "Gaussian",
    "Iterative",
    "MinimumNorm",
    "Momentum",
    "MultiTargeted",
    "Randomized",
    "Restarts",
    "Started",
    "Steepest",
    "Uniform",
    "WorstOf",
    "Zero",
    "names",
    "parse",
    "perturb",
    "with_eps",
    "worst_of_losses",
]
