"""What two coupled rejection metrics prove: confidence and rectified confidence tell wrong inputs.

With F a softmax, m its largest entry and y the label, the confidence is F_m, the true confidence
F_y, and A* = F_y / F_m what an auxiliary head A should say, so that R = F_m A = F_y.
"""

from __future__ import annotations

import numpy as np


def auxiliary_error(
    probabilities: np.ndarray, labels: np.ndarray, auxiliary: np.ndarray
) -> np.ndarray:
    """xi = 2 |A - A*|.

    Where |log(A / A*)| <= log(2 / (2 - xi)), as one may also ask, the error is at most xi, for both
    are at most 1.

    Args:
      probabilities: F (..., L), positive.
      labels: y (...), integers.
      auxiliary: A (...), in (0, 1).

    Returns:
      xi (...), in [0, 2).
    """
    true = np.take_along_axis(probabilities, np.asarray(labels)[..., None], -1)[..., 0]
    return 2 * np.abs(auxiliary - true / probabilities.max(-1))


def sufficient_confidence(error: np.ndarray) -> np.ndarray:
    """1 / (2 - xi): above it, an error of at most xi cannot move R across 1/2."""
    return 1 / (2 - np.asarray(error, float))


def rejection_slack(
    probabilities: np.ndarray, labels: np.ndarray, auxiliary: np.ndarray
) -> np.ndarray:
    """R - 1/2 of right inputs, 1/2 - R of wrong ones; +inf where the confidence is not sufficient.

    So whoever accepts where both F_m > 1 / (2 - xi) and R >= 1/2 accepts no wrong input on which
    the head's error is at most xi, and rejects no right one of that confidence.

    Proof: a right input has A* = 1, so A >= 1 - xi / 2 and R > (1 - xi / 2) / (2 - xi) = 1/2. A
    wrong one has F_y <= 1 - F_m, so R <= F_y + F_m xi / 2 <= 1 - F_m (1 - xi / 2) < 1/2.

    Args:
      probabilities: F (..., L), positive, without ties at the top.
      labels: y (...), integers.
      auxiliary: A (...), in (0, 1).

    References:
      In the manner of Pang et al., "Two coupled rejection metrics can tell adversarial examples
      apart", CVPR 2022, who prove a theorem of this kind for a right and a wrong input.

    Guarantees:
      Never negative, to rounding, at any error; as small as one likes for right and for wrong
      inputs just above the sufficient confidence.
    """
    confidence = probabilities.max(-1)
    distance = confidence * auxiliary - 0.5
    found = np.where(probabilities.argmax(-1) == labels, distance, -distance)
    least = sufficient_confidence(auxiliary_error(probabilities, labels, auxiliary))
    return np.where(confidence > least, found, np.inf)
