"""Attacks: each crafts one adversarial example; `perturb` runs one over any number of images."""

from robustjax.attacks.apgd import APGD
from robustjax.attacks.autoattack import AutoAttack
from robustjax.attacks.crafting import perturb
from robustjax.attacks.ddn import DDN
from robustjax.attacks.deepfool import DeepFool
from robustjax.attacks.ensemble import (
    Ensemble,
    MultiTargeted,
    Restarts,
    WorstOf,
    with_eps,
    worst_of_losses,
)
from robustjax.attacks.fab import FAB
from robustjax.attacks.fmn import FMN
from robustjax.attacks.gradient import BIM, FGSM, ILCM, MIFGSM, PGD, RFGSM
from robustjax.attacks.iterative import Iterative, MinimumNorm
from robustjax.attacks.randomized import Randomized
from robustjax.attacks.registry import names, parse
from robustjax.attacks.rules import Adam, Momentum, Steepest
from robustjax.attacks.square import Square
from robustjax.attacks.starts import Corner, Gaussian, Surface, Uniform, Zero

__all__ = [
    "APGD",
    "BIM",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "ILCM",
    "MIFGSM",
    "PGD",
    "RFGSM",
    "Adam",
    "AutoAttack",
    "Corner",
    "DeepFool",
    "Ensemble",
    "Gaussian",
    "Iterative",
    "MinimumNorm",
    "Momentum",
    "MultiTargeted",
    "Randomized",
    "Restarts",
    "Square",
    "Steepest",
    "Surface",
    "Uniform",
    "WorstOf",
    "Zero",
    "names",
    "parse",
    "perturb",
    "with_eps",
    "worst_of_losses",
]
