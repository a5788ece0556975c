"""Attacks: each crafts one adversarial example; `perturb` runs one over any number of images."""

from robustjax.attacks.apgd import APGD
from robustjax.attacks.autoattack import AutoAttack
from robustjax.attacks.crafting import perturb
from robustjax.attacks.ensemble import (
    Ensemble,
    MultiTargeted,
    Restarts,
    WorstOf,
    with_eps,
    worst_of_losses,
)
from robustjax.attacks.gaussian_noise import GaussianNoise
from robustjax.attacks.gradient import BIM, FGSM, ILCM, MIFGSM, PGD, RFGSM
from robustjax.attacks.hop_skip_jump import HopSkipJump
from robustjax.attacks.iterative import Iterative, MinimumNorm
from robustjax.attacks.randomized import Randomized
from robustjax.attacks.registry import names, parse
from robustjax.attacks.rules import Adam, Momentum, Steepest
from robustjax.attacks.spatial import Draws, Grid, Spatial
from robustjax.attacks.square import Square
from robustjax.attacks.starts import Corner, Gaussian, Surface, Uniform, Zero
from robustjax.attacks.zeroth_order import NES, SPSA, ZerothOrder

__all__ = [
    "APGD",
    "BIM",
    "FGSM",
    "ILCM",
    "MIFGSM",
    "NES",
    "PGD",
    "RFGSM",
    "SPSA",
    "Adam",
    "AutoAttack",
    "Corner",
    "Draws",
    "Ensemble",
    "Gaussian",
    "GaussianNoise",
    "Grid",
    "HopSkipJump",
    "Iterative",
    "MinimumNorm",
    "Momentum",
    "MultiTargeted",
    "Randomized",
    "Restarts",
    "Spatial",
    "Square",
    "Steepest",
    "Surface",
    "Uniform",
    "WorstOf",
    "Zero",
    "ZerothOrder",
    "names",
    "parse",
    "perturb",
    "with_eps",
    "worst_of_losses",
]
