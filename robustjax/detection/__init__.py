"""Detectors: `fit` gives a score of one image, higher = more normal; a threshold rejects low ones.

fitted = KDensity().fit(model, train_images, train_labels)     # a pytree, fitted(x) -> ()
threshold = threshold_at(scores(fitted, validation_images), false_rejection=0.05)
found = rates(labels, clean_predictions, scores(fitted, images), ..., threshold=threshold)
x_adv = perturb(JointPGD(Linf(8 / 255)), with_score(fitted, threshold), key, images, labels)
"""

from robustjax.detection.autoencoder import Autoencoder
from robustjax.detection.carlini_wagner_wb import CarliniWagnerWB
from robustjax.detection.combination import Combined, combine
from robustjax.detection.detector import (
    Detector,
    Fitted,
    accepted_and_wrong,
    scores,
    with_score,
)
from robustjax.detection.feature_squeezing import (
    BitDepth,
    FeatureSqueezing,
    MedianSmoothing,
    NonLocalMeans,
)
from robustjax.detection.gaussian import Mahalanobis
from robustjax.detection.grad_norm import GradNorm
from robustjax.detection.intrinsic_dimension import LID
from robustjax.detection.joint_pgd import AdaptivePGD, JointPGD
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
from robustjax.detection.prediction_inconsistency import PredictionInconsistency
from robustjax.detection.reconstruction import ReconstructionDivergence, ReconstructionError
from robustjax.detection.rectified import Rectified
from robustjax.detection.registry import DETECTORS, NEEDS, PAPERS, parse, register
from robustjax.detection.thresholding import (
    NOT_SURE,
    Rates,
    auc,
    decide,
    rates,
    roc,
    threshold_at,
    tpr_at_fpr,
)
from robustjax.detection.uncertainty import Uncertainty

__all__ = [
    "DETECTORS",
    "LID",
    "NEEDS",
    "NOT_SURE",
    "PAPERS",
    "AdaptivePGD",
    "Autoencoder",
    "BitDepth",
    "CarliniWagnerWB",
    "CenterDistance",
    "Combined",
    "Confidence",
    "Detector",
    "Energy",
    "Entropy",
    "FeatureSqueezing",
    "Fitted",
    "GradNorm",
    "JointPGD",
    "KDensity",
    "LayerInconsistency",
    "Mahalanobis",
    "MaxMargin",
    "MedianSmoothing",
    "Neighbors",
    "NonLocalMeans",
    "NonME",
    "PredictionInconsistency",
    "Rates",
    "ReconstructionDivergence",
    "ReconstructionError",
    "Rectified",
    "Uncertainty",
    "accepted_and_wrong",
    "auc",
    "combine",
    "decide",
    "parse",
    "rates",
    "register",
    "roc",
    "scores",
    "threshold_at",
    "tpr_at_fpr",
    "with_score",
]
