"""What little is left of a softmax once it is reversed: Theorem 2 of reverse cross-entropy.

RCE trains F = softmax(Z) towards R_y, which is 0 at the label y and 1 / (L - 1) elsewhere; the
classifier is G = softmax(-Z), proportional to 1 / F. Everything here is a function of F.
"""

from __future__ import annotations

import numpy as np

from robustjax.config import check_number


def reversed_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """G = softmax(-Z) of F = softmax(Z): 1 / F, made to sum to one.

    Args:
      probabilities: F (..., L), positive.

    Raises:
      ValueError: an entry that is not positive: no softmax has one.
    """
    probabilities = np.asarray(probabilities, float)
    if not (probabilities > 0).all():
        raise ValueError("a softmax's probabilities are positive: clip them, or start from logits")
    odds = probabilities.min(-1, keepdims=True) / probabilities
    return odds / odds.sum(-1, keepdims=True)


def reverse_error(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """alpha = ||F - R_y||_inf: how far training is from its optimum.

    Args:
      probabilities: F (..., L).
      labels: y (...), integers.
    """
    hot = _one_hot(labels, probabilities.shape[-1])
    return np.abs(probabilities - (1 - hot) / (hot.shape[-1] - 1)).max(-1)


def one_hot_slack(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """alpha (L - 1)^2 - ||G - 1_y||_inf: the classifier approaches the label's one-hot vector.

    With n = L - 1 and T = sum_{j != y} 1 / F_j the norm is F_y T / (1 + F_y T), and F_y <= alpha,
    F_j >= 1 / n - alpha give at most alpha n^2 / (1 - alpha n + alpha n^2). An alpha of 1 / n or
    more makes the bound at least n.

    Args:
      probabilities: F (..., L).
      labels: y (...), integers.

    Returns:
      The slack, (...).

    References:
      Pang et al., "Towards robust detection of adversarial examples", 2018, Theorem 2, which asks
      for alpha far below 1 / L.

    Guarantees:
      Never negative, to rounding, at any alpha; a vanishing part of the bound at
      `extreme_probabilities` of a small one.
    """
    hot = _one_hot(labels, probabilities.shape[-1])
    distance = np.abs(reversed_probabilities(probabilities) - hot).max(-1)
    return _bound(probabilities, labels) - distance


def uniformity_slack(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """2 alpha^2 (L - 1)^2 - max_{j, k != y} |G_j - G_k|: the wrong classes become equal faster.

    The difference is |F_k - F_j| / (F_j F_k S) with S >= 1 / F_y + 1 / F_j + 1 / F_k. Where F_j and
    F_k lie d on both sides of m, m >= 1 / (L - 1) - alpha + d, and the bound for it is linear in d
    and holds at d = 0 and d = alpha. An alpha of 1 / (L - 1) or more makes the bound at least 2.

    Args:
      probabilities: F (..., L), L >= 3.
      labels: y (...), integers.

    Returns:
      The slack, (...).

    References:
      Pang et al., "Towards robust detection of adversarial examples", 2018, Theorem 2.

    Guarantees:
      Never negative, to rounding, at any alpha; a vanishing part of the bound at
      `extreme_probabilities` of a small one and L >= 4. With three classes it stays half of it.
    """
    wrong = _one_hot(labels, probabilities.shape[-1]) == 0
    found = reversed_probabilities(probabilities)
    spread = found.max(-1, where=wrong, initial=0) - found.min(-1, where=wrong, initial=1)
    return 2 * reverse_error(probabilities, labels) * _bound(probabilities, labels) - spread


def extreme_probabilities(num_classes: int, alpha: float) -> np.ndarray:
    """The F at an error alpha where both bounds become equalities as alpha goes to zero.

    The label, class 0, has alpha; one wrong class has alpha too little, another alpha too much, and
    the rest share what is left. With three classes nothing is left: the wrong two are alpha apart,
    and the second bound is twice what can be.

    Args:
      num_classes: L >= 3.
      alpha: in (0, 1 / (L - 1)).

    Returns:
      F (L,).

    Raises:
      ValueError: fewer classes, or an alpha outside.
    """
    check_number("num_classes", num_classes, 3)
    even = 1 / (num_classes - 1)
    if not 0 < alpha < even:
        raise ValueError(f"alpha must lie between 0 and 1 / (L - 1) = {even:.4g}, got {alpha}")
    if num_classes == 3:
        return np.array([alpha, even - alpha, even])
    rest = np.full(num_classes - 3, even - alpha / (num_classes - 3))
    return np.array([alpha, even - alpha, even + alpha, *rest])


def sampled_probabilities(
    num_classes: int, alpha: float, samples: int, seed: int = 0
) -> np.ndarray:
    """Random F whose error is at most alpha, for the label 0; its edges and corners are likely.

    The label gets u alpha, and the wrong classes 1 / (L - 1) each, less their even share of that,
    plus a random direction as far as the error allows, or for half of the samples a part of it.

    Args:
      num_classes: L >= 3.
      alpha: in (0, 1 / (L - 1)).
      samples: N.
      seed: of the samples.

    Returns:
      F (N, L), positive, with sums of one.
    """
    rng = np.random.default_rng(seed)
    wrong = num_classes - 1
    label = alpha * (1 - rng.random((samples, 1)) ** 2)
    direction = rng.standard_normal((samples, wrong))
    # some have few large entries, others many of one size
    direction = np.sign(direction) * np.abs(direction) ** rng.choice([0.1, 1, 4], (samples, 1))
    direction -= direction.mean(1, keepdims=True)
    start = -label / wrong
    room = (alpha - np.sign(direction) * start) / np.abs(direction)
    part = np.where(rng.random((samples, 1)) < 0.5, 1, rng.random((samples, 1)))
    moved = start + part * room.min(1, keepdims=True) * direction
    return np.hstack([label, 1 / wrong + moved])


def _bound(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """alpha (L - 1)^2."""
    return reverse_error(probabilities, labels) * (probabilities.shape[-1] - 1) ** 2


def _one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(...) -> (..., L)."""
    return np.eye(num_classes)[labels]
