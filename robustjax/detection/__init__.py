"""Detectors: `fit` gives a score of one image, higher = more normal; a threshold turns it down.

fitted = KDensity().fit(model, train_images, train_labels)     # a pytree, fitted(x) -> ()
threshold = threshold_at(scores(fitted, validation_images), false_rejection=0.05)
found = report(labels, clean_predictions, scores(fitted, images), ..., threshold=threshold)
x_adv = perturb(PGD(loss=reads_output_and_score), with_score(fitted), key, images, labels)
"""

from robustjax.detection.combination import Combined, combine
from robustjax.detection.detector import Detector, Fitted, scores, with_score
from robustjax.detection.gaussian import Mahalanobis
from robustjax.detection.intrinsic_dimension import LID
from robustjax.detection.kernel_density import KDensity
from robustjax.detection.logit_scores import (
    CenterDistance,
    Confidence,
    Energy,
    Entropy,
    MaxMargin,
    NonME,
)
from robustjax.detection.reconstruction import ReconstructionDivergence, ReconstructionError
from robustjax.detection.squeezing import BitDepth, FeatureSqueezing, MedianSmoothing
from robustjax.detection.thresholding import (
    NOT_SURE,
    Detection,
    auc,
    decide,
    report,
    threshold_at,
    tpr_at_fpr,
)
from robustjax.detection.uncertainty import Uncertainty

__all__ = [
    "LID",
    "NOT_SURE",
    "BitDepth",
    "CenterDistance",
    "Combined",
    "Confidence",
    "Detection",
    "Detector",
    "Energy",
    "Entropy",
    "FeatureSqueezing",
    "Fitted",
    "KDensity",
    "Mahalanobis",
    "MaxMargin",
    "MedianSmoothing",
    "NonME",
    "ReconstructionDivergence",
    "ReconstructionError",
    "Uncertainty",
    "auc",
    "combine",
    "decide",
    "report",
    "scores",
    "threshold_at",
    "tpr_at_fpr",
    "with_score",
]
