"""Attacks: each crafts one adversarial example; `perturb` runs one over any number of images.

The parts of a gradient attack have modules of their own: `starts`, `steps`, `stops`, `targets` and
`transforms`; `successes` says when an attack has won. What is not listed in `__all__` is private.
"""

from robustjax.attacks import starts, steps, stops, successes, targets, transforms
from robustjax.attacks._black_box.gaussian_noise import GaussianNoise
from robustjax.attacks._black_box.hop_skip_jump import HopSkipJump
from robustjax.attacks._black_box.patient_square import PatientSquare
from robustjax.attacks._black_box.spatial import Draws, Grid, Spatial
from robustjax.attacks._black_box.square import Square
from robustjax.attacks._black_box.zeroth_order import NES, SPSA, ZerothOrder
from robustjax.attacks._core.bpda import bpda
from robustjax.attacks._core.ensemble import (
    Ensemble,
    Restarts,
    WorstOf,
    with_eps,
    worst_of_losses,
)
from robustjax.attacks._core.iterative import Iterative, MinimumNorm
from robustjax.attacks._core.randomized import Randomized
from robustjax.attacks._engine.craft import perturb
from robustjax.attacks._ensembles.adaptive import Adaptive, distance_head_attacks, mmc_paper_attacks
from robustjax.attacks._ensembles.autoattack import AutoAttack
from robustjax.attacks._ensembles.fast_autoattack import FastAutoAttack
from robustjax.attacks._ensembles.multi_targeted import MultiTargeted, MultiTargetedPGD
from robustjax.attacks._gradient.adaptive_restarts import AdaptiveRestarts
from robustjax.attacks._gradient.apgd import APGD
from robustjax.attacks._gradient.memetic import Memetic
from robustjax.attacks._gradient.pgd import (
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
)
from robustjax.attacks._minimum_norm.carlini_wagner import CarliniWagnerL2, CarliniWagnerLinf
from robustjax.attacks._minimum_norm.ddn import DDN
from robustjax.attacks._minimum_norm.deepfool import DeepFool
from robustjax.attacks._minimum_norm.ead import EAD
from robustjax.attacks._minimum_norm.fab import FAB
from robustjax.attacks._minimum_norm.fmn import FMN
from robustjax.attacks._minimum_norm.jsma import JSMA
from robustjax.attacks._minimum_norm.penalty import StartAt
from robustjax.attacks._registry import ATTACKS, names, parse, register

__all__ = [
    "APGD",
    "ATTACKS",
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
    "Adaptive",
    "AdaptiveRestarts",
    "AutoAttack",
    "CarliniWagnerL2",
    "CarliniWagnerLinf",
    "DeepFool",
    "Draws",
    "Ensemble",
    "FastAutoAttack",
    "GaussianNoise",
    "Grid",
    "HopSkipJump",
    "Iterative",
    "Memetic",
    "MinimumNorm",
    "MultiTargeted",
    "MultiTargetedPGD",
    "PatientSquare",
    "Randomized",
    "Restarts",
    "Spatial",
    "Square",
    "StartAt",
    "WorstOf",
    "ZerothOrder",
    "bpda",
    "distance_head_attacks",
    "mmc_paper_attacks",
    "names",
    "parse",
    "perturb",
    "register",
    "starts",
    "steps",
    "stops",
    "successes",
    "targets",
    "transforms",
    "with_eps",
    "worst_of_losses",
]
