"""Reversed softmaxes and how fast they approach one-hot vectors: Theorem 2 of the RCE paper.

Reverse cross-entropy trains F = softmax(Z) towards R_y, which is 0 at the label y and 1 / (L - 1)
elsewhere. The classifier is G = softmax(-Z), proportional to 1 / F. Everything here is a function
of F.
"""

from __future__ import annotations

import numpy as np

from robustjax.checks import INF, check_distributions, check_number, checked


@checked(host=True, probabilities=["... L>1", check_distributions])
def reversed_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """G = softmax(-Z) from F = softmax(Z): 1 / F, normalised to sum to one.

    Args:
      probabilities: F (..., L), positive.

    Raises:
      ValueError: an entry is not positive.

    >>> rj.theory.reversed_probabilities(np.array([0.1, 0.4, 0.5])).round(3).tolist()
    [0.69, 0.172, 0.138]
    """
    probabilities = np.asarray(probabilities, float)
    if not (probabilities > 0).all():
        raise ValueError("probabilities must be positive: clip them, or compute from logits")
    odds = probabilities.min(-1, keepdims=True) / probabilities
    return odds / odds.sum(-1, keepdims=True)


@checked(host=True, probabilities=["... L>1", check_distributions], labels="... < L")
def reverse_error(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """alpha = ||F - R_y||_inf: how far training is from its optimum.

    Args:
      probabilities: F (..., L).
      labels: y (...), integers.

    >>> float(rj.theory.reverse_error(np.array([0.1, 0.4, 0.5]), 0))
    0.1
    """
    hot = _one_hot(labels, probabilities.shape[-1])
    return np.abs(probabilities - (1 - hot) / (hot.shape[-1] - 1)).max(-1)


@checked(host=True, probabilities=["... L>1", check_distributions], labels="... < L")
def one_hot_slack(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """alpha (L - 1)^2 - ||G - 1_y||_inf: the classifier approaches the label's one-hot vector.

    Proof: with n = L - 1 and T = sum_{j != y} 1 / F_j, the norm is F_y T / (1 + F_y T). As F_y <=
    alpha and F_j >= 1 / n - alpha, it is at most alpha n^2 / (1 - alpha n + alpha n^2). If alpha is
    1 / n or more, the bound is at least n.

    Args:
      probabilities: F (..., L).
      labels: y (...), integers.

    Returns:
      The slack, (...).

    References:
      Pang et al., "Towards robust detection of adversarial examples", 2018, Theorem 2, which
        requires alpha far below 1 / L.

    Guarantees:
      Never negative, up to rounding, at any alpha. At `extreme_probabilities` of a small alpha it
      is a vanishing part of the bound.

    Ten classes, the bound, and how much of it is left in the worst case:

    >>> slack = rj.theory.one_hot_slack(rj.theory.extreme_probabilities(10, 1e-4), 0)
    >>> bound = 1e-4 * 9**2
    >>> round(float(slack / bound), 3)
    0.008
    """
    hot = _one_hot(labels, probabilities.shape[-1])
    distance = np.abs(reversed_probabilities(probabilities) - hot).max(-1)
    return _bound(probabilities, labels) - distance


@checked(host=True, probabilities=["... L>2", check_distributions], labels="... < L")
def uniformity_slack(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """2 alpha^2 (L - 1)^2 - max_{j, k != y} |G_j - G_k|: the wrong classes become equal faster.

    Proof: the difference is |F_k - F_j| / (F_j F_k S) with S >= 1 / F_y + 1 / F_j + 1 / F_k. If F_j
    and F_k are m - d and m + d, then m >= 1 / (L - 1) - alpha + d; the claim for them is linear in
    d and holds at d = 0 and d = alpha. If alpha is 1 / (L - 1) or more, the bound is at least 2.

    Args:
      probabilities: F (..., L), L >= 3.
      labels: y (...), integers.

    Returns:
      The slack, (...).

    References:
      Pang et al., "Towards robust detection of adversarial examples", 2018, Theorem 2.

    Guarantees:
      Never negative, up to rounding, at any alpha. At `extreme_probabilities` of a small alpha it
      is a vanishing part of the bound for L >= 4; for three classes it is half of the bound.

    >>> slack = rj.theory.uniformity_slack(rj.theory.extreme_probabilities(10, 1e-4), 0)
    >>> bound = 2 * 1e-4**2 * 9**2
    >>> round(float(slack / bound), 3)
    0.008
    """
    wrong = _one_hot(labels, probabilities.shape[-1]) == 0
    found = reversed_probabilities(probabilities)
    spread = found.max(-1, where=wrong, initial=0) - found.min(-1, where=wrong, initial=1)
    return 2 * reverse_error(probabilities, labels) * _bound(probabilities, labels) - spread


@checked(host=True, num_classes=(3, INF))
def extreme_probabilities(num_classes: int, alpha: float) -> np.ndarray:
    """The F of error alpha for which both bounds become equalities as alpha goes to zero.

    The label, class 0, has alpha. One wrong class has alpha less than its share, another alpha
    more, and the others share the rest. With three classes there are no others: the two wrong
    classes differ by alpha, and the second bound is twice the difference.

    Args:
      num_classes: L >= 3.
      alpha: in (0, 1 / (L - 1)).

    Returns:
      F (L,).

    Raises:
      ValueError: fewer than three classes, or an alpha out of range.

    >>> rj.theory.extreme_probabilities(4, 0.01).round(3).tolist()
    [0.01, 0.323, 0.343, 0.323]
    """
    check_number("num_classes", num_classes, 3)
    even = 1 / (num_classes - 1)
    if not 0 < alpha < even:
        raise ValueError(f"alpha must lie between 0 and 1 / (L - 1) = {even:.4g}, got {alpha}")
    if num_classes == 3:
        return np.array([alpha, even - alpha, even])
    rest = np.full(num_classes - 3, even - alpha / (num_classes - 3))
    return np.array([alpha, even - alpha, even + alpha, *rest])


@checked(host=True, num_classes=(3, INF), samples=(1, INF))
def sampled_probabilities(
    num_classes: int, alpha: float, samples: int, seed: int = 0
) -> np.ndarray:
    """Random F with an error of at most alpha for the label 0, often on an edge or in a corner.

    The label gets a random part of alpha, and the wrong classes equal shares of the rest. Then the
    wrong classes move in a random direction as far as the error allows, or for half of the samples
    a part of that way.

    Args:
      num_classes: L >= 3.
      alpha: in (0, 1 / (L - 1)).
      samples: N.
      seed: for the samples.

    Returns:
      F (N, L), positive; each sums to one.

    >>> probabilities = rj.theory.sampled_probabilities(5, alpha=0.1, samples=1000)
    >>> round(float(rj.theory.reverse_error(probabilities, np.zeros(1000, int)).max()), 6)
    0.1
    """
    rng = np.random.default_rng(seed)
    wrong = num_classes - 1
    label = alpha * (1 - rng.random((samples, 1)) ** 2)
    direction = rng.standard_normal((samples, wrong))
    # some directions have few large entries, others many of equal size
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
