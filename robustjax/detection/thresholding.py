"""Accept an image whose score reaches a threshold, else answer NOT SURE; how well that works.

Positives are normal images, negatives adversarial ones; a higher score is more normal.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from robustjax.checks import INF, check_number, checked
from robustjax.lazy import Lazy

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = Lazy("scipy.stats")

NOT_SURE = -1
"""The answer to an image that is rejected."""


@checked(host=True, clean_scores="N", false_rejection=(0, 1))
def threshold_at(clean_scores: Any, false_rejection: float) -> float:
    """The largest threshold that rejects at most this fraction of clean validation images.

    Raises:
      ValueError: no scores, NaN among them, or a fraction outside [0, 1].

    Guarantees:
      score < threshold for at most floor(false_rejection N) of them, ties or not.

    >>> rj.detection.threshold_at([1.0, 2.0, 3.0, 4.0], false_rejection=0.25)
    2.0
    """
    check_number("false_rejection", false_rejection, 0, 1)
    ordered = np.sort(_checked(clean_scores, "clean_scores"))
    if not ordered.size:
        raise ValueError("clean_scores is empty; choose a threshold on clean validation images")
    # 0.29 * 100 is 28.999999999999996
    rejected = int(np.floor(false_rejection * ordered.size * (1 + 1e-12)))
    return float(ordered[rejected]) if rejected < ordered.size else float("inf")


@checked(host=True, predictions="N", scores="N", threshold=(-INF, INF))
def decide(predictions: Any, scores: Any, threshold: float) -> np.ndarray:
    """The prediction where score >= threshold, elsewhere NOT_SURE: (N,) integers.

    >>> rj.detection.decide([7, 3], scores=[1.0, 2.0], threshold=2.0).tolist()
    [-1, 3]
    """
    check_number("threshold", threshold, -np.inf)
    return np.where(_checked(scores, "scores") >= threshold, np.asarray(predictions), NOT_SURE)


@checked(host=True, positives="N>-1", negatives="M>-1")
def auc(positives: Any, negatives: Any) -> float:
    """P(positive > negative) + P(equal) / 2, the area under the ROC curve; nan if one is empty.

    From average ranks: AUC = (sum of the positives' ranks - P (P + 1) / 2) / (P Q).

    Guarantees:
      Equal to scikit-learn's `roc_auc_score`, ties included; scores may be infinite.
      auc(a, b) + auc(b, a) = 1.

    >>> rj.detection.auc(positives=[1.0, 2.0], negatives=[0.0, 1.0])
    0.875
    """
    positives, negatives = _checked(positives, "positives"), _checked(negatives, "negatives")
    p, q = positives.size, negatives.size
    if not p or not q:
        return float("nan")
    ranks = stats.rankdata(np.concatenate([positives, negatives]))
    return float((ranks[:p].sum() - p * (p + 1) / 2) / (p * q))


@checked(host=True, positives="N>-1", negatives="M>-1")
def roc(positives: Any, negatives: Any) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve (fpr, tpr): the fractions accepted at every threshold, from none to all.

    Empty where one of the two is.

    Guarantees:
      The area under it, by trapezoids, is `auc`.

    >>> fpr, tpr = rj.detection.roc(positives=[1.0, 2.0], negatives=[0.0, 1.0])
    >>> fpr.tolist(), tpr.tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    positives, negatives = _checked(positives, "positives"), _checked(negatives, "negatives")
    if not positives.size or not negatives.size:
        return np.zeros(0), np.zeros(0)
    thresholds = np.unique(np.concatenate([positives, negatives]))[::-1]

    def accepted(scores):
        below = np.searchsorted(np.sort(scores), thresholds)
        return np.concatenate([[0.0], 1 - below / scores.size])

    return accepted(negatives), accepted(positives)


@checked(host=True, positives="N>-1", negatives="M>-1", fpr=(0, 1))
def tpr_at_fpr(positives: Any, negatives: Any, fpr: float) -> float:
    """The largest fraction of positives accepted by a threshold that accepts <= fpr negatives.

    nan if one is empty.

    >>> rj.detection.tpr_at_fpr(positives=[1.0, 2.0], negatives=[0.0, 1.0], fpr=0.4)
    0.5
    """
    check_number("fpr", fpr, 0, 1)
    positives, negatives = _checked(positives, "positives"), _checked(negatives, "negatives")
    if not positives.size or not negatives.size:
        return float("nan")
    allowed = int(np.floor(fpr * negatives.size * (1 + 1e-12)))
    if allowed == negatives.size:
        return 1.0
    return float(np.mean(positives > np.sort(negatives)[::-1][allowed]))


@dataclasses.dataclass(frozen=True)
class Rates:
    """How well a thresholded score works against one attack; nan where nothing was counted.

    Attributes:
      auc: of clean against adversarial scores of the population.
      tpr, fpr: the fractions of its clean and adversarial images that the threshold accepts.
      tpr_at_fpr: the best tpr of any threshold whose fpr is at most `fpr_limit`.
      fpr_limit: that limit.
      detected_5, detected_1: the fraction of its adversarial images that a threshold rejects which
        rejects at most 5 % (1 %) of its clean ones: the 'TPR at 5 % FPR' of papers whose positives
        are the adversarial images.
      threshold: an image is accepted if score >= threshold.
      accepted_clean: the fraction of all clean images that are accepted.
      clean_accuracy: the accuracy on the accepted clean images.
      accepted_wrong: the fraction of all adversarial images that are accepted and misclassified:
        what an attacker gets.
      robust_accuracy: the fraction of all images whose clean version is accepted and right, and
        whose adversarial one is not accepted and wrong. If no stronger attack lowers it at a
        radius, some classifier is as accurate at half the radius (Tramer 2022), however
        slow; so a number above every known classifier's there is a reason to attack again.
      pairs: size of the population.
      n: number of images.
      population: 'fooled' or 'all'.
      reasons: {name of an entry that is nan: why}.

    >>> found = rj.detection.rates([0, 1], [0, 1], [5.0, 4.0], [1, 1], [1.0, 4.0], threshold=3.0)
    >>> isinstance(found, rj.detection.Rates), found.n
    (True, 2)
    """

    auc: float
    tpr: float
    fpr: float
    tpr_at_fpr: float
    fpr_limit: float
    detected_5: float
    detected_1: float
    threshold: float
    accepted_clean: float
    clean_accuracy: float
    accepted_wrong: float
    robust_accuracy: float
    pairs: int
    n: int
    population: str
    reasons: dict[str, str]


@checked(
    host=True,
    labels="N>-1",
    clean_predictions="N>-1",
    clean_scores="N>-1",
    adv_predictions="N>-1",
    adv_scores="N>-1",
    threshold=(-INF, INF),
    fpr_limit=(0, 1),
)
def rates(
    labels: Any,
    clean_predictions: Any,
    clean_scores: Any,
    adv_predictions: Any,
    adv_scores: Any,
    *,
    threshold: float,
    fpr_limit: float = 0.05,
    population: Literal["fooled", "all"] = "fooled",
) -> Rates:
    """The paper's protocol on pairs of a clean image and the adversarial one made of it.

    Args:
      labels: (N,), true.
      clean_predictions, clean_scores: (N,), of the clean images.
      adv_predictions, adv_scores: (N,), of the adversarial images, in the same order.
      threshold: from `threshold_at` on other clean images.
      fpr_limit: the limit for `tpr_at_fpr`.
      population: the pairs over which auc, tpr and fpr are computed: 'fooled' keeps those with the
        clean image classified correctly and the adversarial one wrongly, as the paper does; 'all'
        keeps all.

    Raises:
      ValueError: arrays that are not of one length, or NaN among the scores.

    References:
      Pang et al., "Towards robust detection of adversarial examples", 2018, Table 2.
      Tramer, "Detecting adversarial examples is (nearly) as hard as classifying them", 2022.

    Guarantees:
      An empty population gives nan and a reason, never a number.

    The attack fools the model on the first image, and the detector rejects it:

    >>> found = rj.detection.rates([0, 1], [0, 1], [5.0, 4.0], [1, 1], [1.0, 4.0], threshold=3.0)
    >>> found.auc, found.accepted_wrong, found.pairs
    (1.0, 0.0, 1)
    """
    labels, clean_predictions, adv_predictions = map(
        np.asarray, (labels, clean_predictions, adv_predictions)
    )
    clean, adv = _checked(clean_scores, "clean_scores"), _checked(adv_scores, "adv_scores")
    right, fooled = clean_predictions == labels, adv_predictions != labels
    kept = right & fooled if population == "fooled" else np.ones(labels.shape, bool)
    accepted, let_in = clean >= threshold, fooled & (adv >= threshold)
    values = {
        "auc": auc(clean[kept], adv[kept]),
        "tpr": _fraction(clean[kept] >= threshold),
        "fpr": _fraction(adv[kept] >= threshold),
        "tpr_at_fpr": tpr_at_fpr(clean[kept], adv[kept], fpr_limit),
        "detected_5": tpr_at_fpr(-adv[kept], -clean[kept], 0.05),
        "detected_1": tpr_at_fpr(-adv[kept], -clean[kept], 0.01),
        "accepted_clean": _fraction(accepted),
        "clean_accuracy": _fraction(right[accepted]),
        "accepted_wrong": _fraction(let_in),
        "robust_accuracy": _fraction(right & accepted & ~let_in),
    }
    why = dict.fromkeys(values, _why_empty(right, fooled))
    why |= dict.fromkeys(
        ("accepted_clean", "accepted_wrong", "robust_accuracy"), "there are no images"
    )
    why["clean_accuracy"] = "no clean image reaches the threshold"
    reasons = {name: why[name] for name, value in values.items() if np.isnan(value)}
    return Rates(
        **values,
        fpr_limit=fpr_limit,
        threshold=threshold,
        pairs=int(kept.sum()),
        n=labels.size,
        population=population,
        reasons=reasons,
    )


def _why_empty(right: np.ndarray, fooled: np.ndarray) -> str:
    """Why no pair has a correctly classified clean image and an adversarial one that fools."""
    if not right.size:
        return "there are no images"
    if not right.any():
        return "no clean image is classified correctly"
    if not fooled.any():
        return "no attack succeeded"
    return "every adversarial image that fools comes from a misclassified clean one"


def _fraction(mask: np.ndarray) -> float:
    return float(mask.mean()) if mask.size else float("nan")


def _checked(scores: Any, name: str) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or np.isnan(scores).any():
        raise ValueError(f"{name} must be numbers (N,) without NaN, got shape {scores.shape}")
    return scores
