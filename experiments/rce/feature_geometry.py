"""How far features must move to be misclassified, and to be misclassified and look normal.

The head is linear, so this is geometry in the features, without an attack that may fail. z0 is a
clean image's feature vector, z1 the nearest one that is classified otherwise, z2 the nearest one
that is classified otherwise with a non-ME of at least a detector's threshold (Pang et al., NeurIPS
2018, Sec. 3.2: reverse training leaves only a thin set of those).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax


class Head(NamedTuple):
    """h(z) = z W + b.

    Attributes:
      weights: W (D, K).
      bias: b (K,).
    """

    weights: np.ndarray
    bias: np.ndarray

    def logits(self, z: np.ndarray) -> np.ndarray:
        """(..., D) -> (..., K)."""
        return z @ self.weights + self.bias


def non_me(logits: np.ndarray, excluded: np.ndarray | int | None = None) -> np.ndarray:
    """Non-maximal entropy: of the softmax of all logits but the largest, or but one that is given.

    Args:
      logits: (..., K).
      excluded: (...), classes; None: the largest.
    """
    if excluded is None:
        excluded = logits.argmax(-1)
    kept = np.arange(logits.shape[-1]) != np.asarray(excluded)[..., None]
    rest = logits[kept].reshape(*logits.shape[:-1], -1)
    log_p = log_softmax(rest, axis=-1)
    return -(np.exp(log_p) * log_p).sum(-1)


def nearest_wrong(head: Head, z0: np.ndarray) -> np.ndarray:
    """z1 (D,): the projection onto the nearest of the hyperplanes h_t = h_y, y the class of z0."""
    logits = head.logits(z0)
    y = logits.argmax()
    away = np.delete(head.weights - head.weights[:, [y]], y, 1).T  # (K - 1, D)
    gaps = np.delete(logits[y] - logits, y)
    t = (gaps / np.linalg.norm(away, axis=1)).argmin()
    return z0 + gaps[t] / (away[t] @ away[t]) * away[t]


def nearest_unnoticed(head: Head, z0: np.ndarray, least: float) -> np.ndarray | None:
    """z2 (D,): the nearest point of another class whose non-ME is at least `least`.

    For every class t SLSQP minimises ||z - z0||^2 under h_t >= h_j and the bound on the entropy, in
    the few directions that the logits depend on, from the nearest point where all logits but the
    t-th are equal. None where it finds no such point.
    """
    y = head.logits(z0).argmax()
    basis = row_space(head)
    inner = Head(basis.T @ head.weights, head.logits(z0))  # of the displacement's coordinates
    found = [
        a
        for t in range(len(inner.bias))
        if t != y and (a := _into_class(inner, t, least)) is not None
    ]
    return z0 + basis @ min(found, key=np.linalg.norm) if found else None


def row_space(head: Head) -> np.ndarray:
    """An orthonormal basis (D, <= K - 1) of the directions in which logits move apart."""
    centred = head.weights - head.weights.mean(1, keepdims=True)
    axes, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    return axes[:, sizes > 1e-6 * sizes[0]]


def _into_class(head: Head, t: int, least: float, tolerance: float = 1e-4) -> np.ndarray | None:
    """The displacement of least length into class t, entropy at least `least`; None: not found."""
    others = np.delete(np.arange(len(head.bias)), t)
    margins = (head.weights[:, [t]] - head.weights[:, others]).T  # of h_t - h_j, (K - 1, R)
    ahead = head.bias[t] - head.bias[others]
    most = np.log(len(others))
    # The square root of what the entropy lacks is linear near the point where it lacks nothing.
    allowed = np.sqrt(max(most - least, 0))

    def lack(a):
        return np.sqrt(max(most - non_me(head.logits(a), t), 0))

    def gain(a):
        """The gradient of -lack; where nothing lacks, it has none."""
        log_p = log_softmax(head.logits(a)[others])
        p = np.exp(log_p)
        slope = -p * (log_p - p @ log_p)
        return slope @ head.weights[:, others].T / max(2 * lack(a), 1e-9)

    equal = np.linalg.lstsq(margins[1:] - margins[:1], ahead[0] - ahead[1:], rcond=None)[0]
    rules = [
        {"type": "ineq", "fun": lambda a: margins @ a + ahead, "jac": lambda a: margins},
        {"type": "ineq", "fun": lambda a: allowed - lack(a), "jac": gain},
    ]
    tries = []
    for start in (equal, np.zeros_like(equal)):
        end = minimize(lambda a: a @ a, start, jac=lambda a: 2 * a, constraints=rules, tol=1e-9).x
        if (margins @ end + ahead).min() > -tolerance and lack(end) < allowed + tolerance:
            tries.append(end)
    return min(tries, key=np.linalg.norm) if tries else None


def measure(head: Head, features: np.ndarray, least: float) -> dict:
    """How much farther z2 is than z1, of features whose own non-ME is at least `least`."""
    usable = non_me(head.logits(features)) >= least
    ratios, missing = [], 0
    for z0 in features[usable]:
        z2 = nearest_unnoticed(head, z0, least)
        missing += z2 is None
        if z2 is not None:
            near = np.linalg.norm(nearest_wrong(head, z0) - z0)
            ratios.append(float(np.linalg.norm(z2 - z0) / near))
    quartiles = np.percentile(ratios, [25, 50, 75]).tolist() if ratios else None
    return {
        "images": int(usable.sum()),
        "none found": missing,
        "threshold": least,
        "z2 over z1, quartiles": quartiles,
    }
