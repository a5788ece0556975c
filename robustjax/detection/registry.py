"""Detectors by the names of the command line."""

from __future__ import annotations

from robustjax.detection.detector import Detector
from robustjax.detection.feature_squeezing import FeatureSqueezing
from robustjax.detection.gaussian import Mahalanobis
from robustjax.detection.intrinsic_dimension import LID
from robustjax.detection.kernel_density import KDensity
from robustjax.detection.logits import (
    CenterDistance,
    Confidence,
    Energy,
    Entropy,
    MaxMargin,
    NonME,
)
from robustjax.detection.reconstruction import ReconstructionDivergence, ReconstructionError
from robustjax.detection.rectified import Rectified
from robustjax.detection.uncertainty import Uncertainty

DETECTORS: dict[str, Detector] = {
    "confidence": Confidence(),
    "entropy": Entropy(),
    "non-me": NonME(),
    "energy": Energy(),
    "max-margin": MaxMargin(),
    "center-distance": CenterDistance(),
    "k-density": KDensity(),
    "mahalanobis": Mahalanobis(),
    "lid": LID(),
    "squeezing": FeatureSqueezing(),
    "reconstruction": ReconstructionError(),
    "divergence": ReconstructionDivergence(),
    "uncertainty": Uncertainty(),
    "rectified": Rectified(),
}

NEEDS = {
    "uncertainty": ("dropout", "with --dropout"),
    "rectified": ("auxiliary", "by rr or rr-trades"),
}
"""What some ask of the network: an argument of `models.create`, and how one is trained with it."""
