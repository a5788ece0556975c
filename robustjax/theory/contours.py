"""Where the loss of a generalised softmax (g-SCE) is constant: Theorem 1 of the MMC paper.

    h_i(z) = -s_i |z - m_i|^2 + b_i,    loss = -log softmax(h)_y

Softmax cross-entropy is the member s_i = 1, m_i = W_i / 2, b_i + |W_i|^2 / 4. With only the
strongest rival r of the label y kept, the loss is log(1 + exp(h_r - h_y)), and that is constant on
spheres where s_y != s_r and on hyperplanes where s_y = s_r.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from robustjax.config import check_number


class GSCE(NamedTuple):
    """The parameters of isotropic g-SCE, for L classes in d dimensions."""

    centers: np.ndarray
    """(L, d), m_i."""
    scales: np.ndarray
    """(L,), s_i >= 0."""
    biases: np.ndarray
    """(L,), b_i."""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(..., d) -> (..., L)."""
        offsets = features[..., None, :] - self.centers
        return -self.scales * np.sum(offsets**2, -1) + self.biases

    def pair_loss(self, features: np.ndarray, label: int, rival: int) -> np.ndarray:
        """log(1 + exp(h_rival - h_label)): (..., d) -> (...)."""
        logits = self.logits(features)
        return np.logaddexp(0, logits[..., rival] - logits[..., label])


class Sphere(NamedTuple):
    """The points where the loss of a pair of classes has one value."""

    center: np.ndarray
    """(d,), of the pair: it does not depend on the loss."""
    squared_radius: float
    """Negative where no feature has that loss."""


class Hyperplane(NamedTuple):
    """The points z with normal . z = offset."""

    normal: np.ndarray
    """(d,), of length 1."""
    offset: float


def contour(model: GSCE, label: int, rival: int, loss: float) -> Sphere:
    """The sphere on which log(1 + exp(h_rival - h_label)) is `loss`, C.

        M = (s_y m_y - s_r m_r) / (s_y - s_r)
        R^2 = s_y s_r |m_y - m_r|^2 / (s_y - s_r)^2 + (b_y - b_r + log(e^C - 1)) / (s_y - s_r)

    Args:
      model: of the features.
      label, rival: two classes of unlike scale.
      loss: C > 0.

    Raises:
      ValueError: scales that are equal (then the contour is a hyperplane), classes that are no
        pair, or a loss <= 0.

    References:
      Pang et al., "Rethinking softmax cross-entropy loss for adversarial robustness", 2020,
        Theorem 1.

    Guarantees:
      Every point of the sphere has the loss C.
      With s_y > s_r the sphere shrinks to M as C falls to `extreme_loss`; below it there is none.
    """
    (m_y, m_r), (s_y, s_r), (b_y, b_r) = _pair(model, label, rival, loss)
    if s_y == s_r:
        raise ValueError("classes of equal scale have hyperplanes as contours: see `hyperplane`")
    apart = s_y * s_r * np.sum((m_y - m_r) ** 2) / (s_y - s_r) ** 2
    squared = apart + (b_y - b_r + _log_expm1(loss)) / (s_y - s_r)
    return Sphere((s_y * m_y - s_r * m_r) / (s_y - s_r), float(squared))


def contour_deviation(
    model: GSCE, label: int, rival: int, loss: float, points: int = 100, seed: int = 0
) -> float:
    """Theorem 1: the largest |loss - C| at random points of the sphere of C; `contour` has args.

    Raises:
      ValueError: no feature has that loss.

    Guarantees:
      Zero to rounding.
    """
    center, squared = contour(model, label, rival, loss)
    if squared < 0:
        raise ValueError(f"no feature has the loss {loss}; see `extreme_loss`")
    directions = np.random.default_rng(seed).standard_normal((points, len(center)))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    losses = model.pair_loss(center + np.sqrt(squared) * directions, label, rival)
    return float(np.abs(losses - loss).max())


def extreme_loss(model: GSCE, label: int, rival: int) -> float:
    """The loss at the center M of the spheres: the least of all if s_y > s_r, else the greatest.

    log(1 + exp(-(s_y - s_r) B)), with B the R^2 of C = log 2.

    Guarantees:
      R^2 < 0 exactly below it if s_y > s_r, exactly above it if s_y < s_r.
    """
    at_log_2 = contour(model, label, rival, float(np.log(2))).squared_radius
    return float(np.logaddexp(0, -(model.scales[label] - model.scales[rival]) * at_log_2))


def hyperplane(model: GSCE, label: int, rival: int, loss: float) -> Hyperplane:
    """The hyperplane on which log(1 + exp(h_rival - h_label)) is `loss`, for equal scales s.

        2 s (m_y - m_r) . z = s (|m_y|^2 - |m_r|^2) - (b_y - b_r) - log(e^C - 1)

    It is unbounded: the loss constrains one direction of the features and leaves the others free.

    Args:
      model: of the features.
      label, rival: two classes of one scale.
      loss: C > 0.

    Raises:
      ValueError: scales that differ (then the contour is a sphere), classes that are no pair or
        have one center or no scale (then the loss has no contour), or a loss <= 0.

    Guarantees:
      Every point of the hyperplane has the loss C, however far it is.
    """
    (m_y, m_r), (s_y, s_r), (b_y, b_r) = _pair(model, label, rival, loss)
    if s_y != s_r:
        raise ValueError("classes of unlike scale have spheres as contours: see `contour`")
    normal = 2 * s_y * (m_y - m_r)
    level = s_y * (m_y @ m_y - m_r @ m_r) - (b_y - b_r) - _log_expm1(loss)
    length = np.linalg.norm(normal)
    if length == 0:
        raise ValueError("with one center, or scale 0, all features have the same loss")
    return Hyperplane(normal / length, float(level / length))


def hyperplane_deviation(
    model: GSCE, label: int, rival: int, loss: float, points: int = 100, seed: int = 0
) -> float:
    """The largest |loss - C| at random points of the hyperplane of C; `hyperplane` has the args.

    Guarantees:
      Zero to rounding.
    """
    normal, offset = hyperplane(model, label, rival, loss)
    found = np.random.default_rng(seed).standard_normal((points, len(normal)))
    found += np.outer(offset - found @ normal, normal)
    return float(np.abs(model.pair_loss(found, label, rival) - loss).max())


def strongest_rival_slack(logits: np.ndarray, label: int) -> float:
    """Eq. 6 keeps one of the L - 1 rivals; its error lies in [0, log(L - 1)].

    Args:
      logits: (L,).
      label: y.

    Returns:
      The distance of the error to the nearer end of that interval: negative if it were outside.

    Raises:
      ValueError: fewer than two logits, or a label that none of them is of.

    Guarantees:
      Never negative, to rounding; zero at the ends, which are one rival alone and L - 1 equal ones
      that leave the label no probability.
    """
    check_number("the number of logits", len(logits), 2)
    check_number("label", label, 0, len(logits) - 1)
    exact = logsumexp(logits) - logits[label]
    kept = np.logaddexp(0, np.delete(logits, label).max() - logits[label])
    return float(min(exact - kept, np.log(len(logits) - 1) - (exact - kept)))


def _pair(model: GSCE, label: int, rival: int, loss: float) -> list[np.ndarray]:
    """Centers, scales and biases of two classes, once they are and the loss is one that can be."""
    if not loss > 0:
        raise ValueError(f"this loss is positive, got {loss}")
    classes = range(len(model.centers))
    if label == rival or label not in classes or rival not in classes:
        raise ValueError(f"take two of the {len(classes)} classes, got {label} and {rival}")
    return [part[[label, rival]] for part in model]


def _log_expm1(loss: float) -> float:
    """log(e^C - 1), where e^C has no place in a float64 too."""
    return loss + np.log(-np.expm1(-loss))
