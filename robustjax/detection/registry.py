"""Detectors by name, as `robustjax.spec` reads them: 'k-density:sigma2=1/2:count=100'."""

from __future__ import annotations

from robustjax import spec
from robustjax.checks import checked
from robustjax.detection.detector import Detector
from robustjax.detection.feature_squeezing import FeatureSqueezing
from robustjax.detection.gaussian import Mahalanobis
from robustjax.detection.grad_norm import GradNorm
from robustjax.detection.intrinsic_dimension import LID
from robustjax.detection.kernel_density import KDensity
from robustjax.detection.layer_inconsistency import LayerInconsistency
from robustjax.detection.logits import (
    CenterDistance,
    Confidence,
    Energy,
    Entropy,
    MaxMargin,
    NonME,
)
from robustjax.detection.neighbors import Neighbors
from robustjax.detection.reconstruction import ReconstructionDivergence, ReconstructionError
from robustjax.detection.rectified import Rectified
from robustjax.detection.uncertainty import Uncertainty
from robustjax.names import Names

DETECTORS: Names[Detector] = Names(
    "detector",
    {
        "confidence": Confidence(),
        "entropy": Entropy(),
        "non-me": NonME(),
        "energy": Energy(),
        "max-margin": MaxMargin(),
        "center-distance": CenterDistance(),
        "grad-norm": GradNorm(),
        "k-density": KDensity(),
        "mahalanobis": Mahalanobis(),
        "lid": LID(),
        "layer-inconsistency": LayerInconsistency(),
        "neighbors": Neighbors(),
        "squeezing": FeatureSqueezing(),
        "reconstruction": ReconstructionError(),
        "divergence": ReconstructionDivergence(),
        "uncertainty": Uncertainty(),
        "rectified": Rectified(),
    },
)

NEEDS = {
    "uncertainty": ("dropout", "with --dropout"),
    "rectified": ("auxiliary", "by rr or rr-trades"),
}
"""What some detectors need: an argument of `models.create`, and how to train a network with it."""

PAPERS = {
    "non-me": "Pang et al. 2018",
    "energy": "Liu et al. 2020",
    "grad-norm": "Huang et al. 2021",
    "k-density": "Feinman et al. 2017",
    "mahalanobis": "Lee et al. 2018",
    "lid": "Ma et al. 2018",
    "layer-inconsistency": "Yun et al. 2025",
    "neighbors": "He et al. 2024",
    "squeezing": "Xu et al. 2018",
    "reconstruction": "Meng & Chen 2017",
    "divergence": "Meng & Chen 2017",
    "uncertainty": "Feinman et al. 2017",
    "rectified": "Pang et al. 2022",
}
"""The sources of the detectors."""


@checked
def parse(text: str) -> Detector:
    """Build a detector from its name and settings: NAME[:FIELD=VALUE ...].

    >>> parse("k-density:sigma2=1/2:count=none")
    KDensity(sigma2=0.5, count=None, seed=0)

    Raises:
      ValueError: an unknown name or field, or a value that the field cannot hold.
    """
    return spec.parse(text, DETECTORS)


@checked
def register(name: str, detector: Detector) -> None:
    """Register a detector for `parse` and the command line (`--import my_package`).

    Raises:
      ValueError: robustjax has a detector of this name, or it could not be written.

    >>> rj.detection.register("mild-energy", rj.detection.Energy(temperature=2.0))
    >>> rj.detection.parse("mild-energy")
    Energy(temperature=2.0)
    """
    DETECTORS.register(name, detector)
