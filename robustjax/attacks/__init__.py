"""Attacks: each crafts one adversarial example; `perturb` runs one over any number of images."""

from robustjax.attacks.gradient import BIM, FGSM, ILCM, MIFGSM, PGD, RFGSM
from robustjax.attacks.rules import Adam, Momentum, Steepest
from robustjax.attacks.starts import Corner, Gaussian, Uniform, Zero

__all__ = [
    "BIM",
    "FGSM",
    "ILCM",
    "MIFGSM",
    "PGD",
    "RFGSM",
    "Adam",
    "Corner",
    "Gaussian",
    "Momentum",
    "Steepest",
    "Uniform",
    "Zero",
]
