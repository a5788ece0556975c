"""Attacks: each crafts one adversarial example; `perturb` runs one over any number of images."""

from robustjax.attacks.adaptive import Adaptive, distance_head, table_attacks
from robustjax.attacks.apgd import APGD
from robustjax.attacks.autoattack import AutoAttack
from robustjax.attacks.bpda import bpda
from robustjax.attacks.carlini_wagner import CarliniWagnerL2, CarliniWagnerLinf
from robustjax.attacks.crafting import perturb
from robustjax.attacks.ddn import DDN
from robustjax.attacks.deepfool import DeepFool
from robustjax.attacks.ead import EAD
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
from robustjax.attacks.gaussian_noise import GaussianNoise
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
from robustjax.attacks.hop_skip_jump import HopSkipJump
from robustjax.attacks.iterative import Iterative, MinimumNorm
from robustjax.attacks.jsma import JSMA
from robustjax.attacks.penalty import Started
from robustjax.attacks.randomized import Randomized
from robustjax.attacks.registry import names, parse
from robustjax.attacks.rules import Adam, Momentum, Nesterov, Steepest, Unclipped
from robustjax.attacks.spatial import Draws, Grid, Spatial
from robustjax.attacks.square import Square
from robustjax.attacks.starts import Corner, Gaussian, OutputDiversified, Surface, Uniform, Zero
from robustjax.attacks.stops import After, Misclassified, Never, Stationary
from robustjax.attacks.transforms import DiverseInput, ScaleInvariant, TranslationInvariant
from robustjax.attacks.zeroth_order import NES, SPSA, ZerothOrder

__all__ = [
    "APGD",
    "BIM",
    "DDN",
    "DIM",
    "EAD",
    "FAB",
    "FGSM",
    "FMN",
    "ILCM",
    "JSMA",
    "MIFGSM",
    "NES",
    "NIFGSM",
    "PGD",
    "RFGSM",
    "SINIFGSM",
    "SPSA",
    "TIM",
    "Adam",
    "Adaptive",
    "After",
    "AutoAttack",
    "CarliniWagnerL2",
    "CarliniWagnerLinf",
    "Corner",
    "DeepFool",
    "DiverseInput",
    "Draws",
    "Ensemble",
    "Gaussian",
    "GaussianNoise",
    "Grid",
    "HopSkipJump",
    "Iterative",
    "MinimumNorm",
    "Misclassified",
    "Momentum",
    "MultiTargeted",
    "MultiTargetedPGD",
    "Nesterov",
    "Never",
    "OutputDiversified",
    "Randomized",
    "Restarts",
    "ScaleInvariant",
    "Spatial",
    "Square",
    "Started",
    "Stationary",
    "Steepest",
    "Surface",
    "TranslationInvariant",
    "Unclipped",
    "Uniform",
    "WorstOf",
    "Zero",
    "ZerothOrder",
    "bpda",
    "distance_head",
    "names",
    "parse",
    "perturb",
    "table_attacks",
    "with_eps",
    "worst_of_losses",
]
