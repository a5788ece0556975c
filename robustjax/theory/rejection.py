"""Two coupled rejection metrics: confidence and rectified confidence expose wrong predictions.

Let F be a softmax, m its largest entry and y the label. The confidence is F_m, the true confidence
F_y. An auxiliary head A should learn A* = F_y / F_m, so that the rectified confidence R = F_m A is
F_y.
"""

from __future__ import annotations

import numpy as np

from robustjax.checks import check_distributions, checked


@checked(
    host=True,
    probabilities=["... L>1", check_distributions],
    labels="... < L",
    auxiliary=["...", (0, 1)],
)
def auxiliary_error(
    probabilities: np.ndarray, labels: np.ndarray, auxiliary: np.ndarray
) -> np.ndarray:
    """The error of the auxiliary head, xi = 2 |A - A*|.

    The condition |log(A / A*)| <= log(2 / (2 - xi)) implies an error of at most xi, because A and
    A* are at most 1.

    Args:
      probabilities: F (..., L), positive.
      labels: y (...), integers.
      auxiliary: A (...), in (0, 1).

    Returns:
      xi (...), in [0, 2).

    A wrong prediction, for which the head should say 0.2 / 0.5:

    >>> round(float(rj.theory.auxiliary_error(np.array([0.2, 0.5, 0.3]), 0, 0.5)), 6)
    0.2
    """
    true = np.take_along_axis(probabilities, np.asarray(labels)[..., None], -1)[..., 0]
    return 2 * np.abs(auxiliary - true / probabilities.max(-1))


@checked(host=True, error=["...", (0, 2)])
def sufficient_confidence(error: np.ndarray) -> np.ndarray:
    """1 / (2 - xi): above it, an error of at most xi cannot move R across 1/2.

    >>> rj.theory.sufficient_confidence([0.0, 0.2, 1.0]).round(3).tolist()
    [0.5, 0.556, 1.0]
    """
    return 1 / (2 - np.asarray(error, float))


@checked(
    host=True,
    probabilities=["... L>1", check_distributions],
    labels="... < L",
    auxiliary=["...", (0, 1)],
)
def rejection_slack(
    probabilities: np.ndarray, labels: np.ndarray, auxiliary: np.ndarray
) -> np.ndarray:
    """R - 1/2 of right inputs, 1/2 - R of wrong ones; +inf if the confidence is not sufficient.

    Accept an input if F_m > 1 / (2 - xi) and R >= 1/2. Where the head's error is at most xi, this
    rule accepts no wrong input and rejects no right input of that confidence.

    Proof: a right input has A* = 1, so A >= 1 - xi / 2 and R > (1 - xi / 2) / (2 - xi) = 1/2. A
    wrong one has F_y <= 1 - F_m, so R <= F_y + F_m xi / 2 <= 1 - F_m (1 - xi / 2) < 1/2.

    Args:
      probabilities: F (..., L), positive, without ties at the top.
      labels: y (...), integers.
      auxiliary: A (...), in (0, 1).

    References:
      After Pang et al., "Two coupled rejection metrics can tell adversarial examples apart", CVPR
        2022, who prove a theorem of this kind for a right and a wrong input.

    Guarantees:
      Never negative, up to rounding, at any error. Arbitrarily small for right and for wrong inputs
      just above the sufficient confidence.

    A right input, and a wrong one whose confidence is not sufficient:

    >>> probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]])
    >>> rj.theory.rejection_slack(probabilities, [0, 0], np.array([0.9, 0.5])).round(3).tolist()
    [0.13, inf]
    """
    confidence = probabilities.max(-1)
    distance = confidence * auxiliary - 0.5
    found = np.where(probabilities.argmax(-1) == labels, distance, -distance)
    least = sufficient_confidence(auxiliary_error(probabilities, labels, auxiliary))
    return np.where(confidence > least, found, np.inf)
