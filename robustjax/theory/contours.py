"""Contours of constant loss of a generalised softmax (g-SCE): Theorem 1 of the MMC paper.

    h_i(z) = -s_i |z - m_i|^2 + b_i,    loss = -log softmax(h)_y

Softmax cross-entropy is the member s_i = 1, m_i = W_i / 2, b_i + |W_i|^2 / 4. If only the strongest
rival r of the label y is kept, the loss is log(1 + exp(h_r - h_y)). It is constant on spheres if
s_y != s_r, and on hyperplanes if s_y = s_r.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from robustjax.checks import INF, check_number, checked


class GSCE(NamedTuple):
    """The parameters of isotropic g-SCE, for L classes in d dimensions.

    >>> centers = rj.centers.max_mahalanobis(3, 2)
    >>> model = rj.theory.GSCE(centers, scales=np.ones(3), biases=np.zeros(3))
    >>> model.logits(centers[0]).round(2)  # -|z - m_i|^2 at the first center
    array([ 0., -3., -3.])
    """

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
    """The points where the loss of a pair of classes has one value.

    >>> rj.theory.Sphere(center=np.zeros(2), squared_radius=4.0).squared_radius ** 0.5
    2.0
    """

    center: np.ndarray
    """(d,), the same for every loss of this pair."""
    squared_radius: float
    """Negative if no feature has that loss."""


class Hyperplane(NamedTuple):
    """The points z with normal . z = offset.

    >>> plane = rj.theory.Hyperplane(normal=np.array([0.6, 0.8]), offset=1.0)
    >>> bool(np.isclose(plane.normal @ np.array([1.0, 0.5]), plane.offset))
    True
    """

    normal: np.ndarray
    """(d,), of length 1."""
    offset: float


@checked(host=True)
def contour(model: GSCE, label: int, rival: int, loss: float) -> Sphere:
    """The sphere on which log(1 + exp(h_rival - h_label)) is `loss`, C.

        M = (s_y m_y - s_r m_r) / (s_y - s_r)
        R^2 = s_y s_r |m_y - m_r|^2 / (s_y - s_r)^2 + (b_y - b_r + log(e^C - 1)) / (s_y - s_r)

    Args:
      model: the parameters of g-SCE.
      label, rival: two classes of different scales.
      loss: C > 0.

    Raises:
      ValueError: equal scales (then the contour is a hyperplane), two classes that are the same or
        do not exist, or a loss <= 0.

    References:
      Pang et al., "Rethinking softmax cross-entropy loss for adversarial robustness", 2020,
        Theorem 1.

    Guarantees:
      Every point of the sphere has the loss C.
      If s_y > s_r, the sphere shrinks to M as C falls to `extreme_loss`; below that there is none.

    A label at 0 of scale 2 against a rival at (2, 0) of scale 1; the spheres' center is neither:

    >>> model = rj.theory.GSCE(np.array([[0, 0], [2, 0]]), np.array([2, 1]), np.zeros(2))
    >>> center, squared_radius = rj.theory.contour(model, label=0, rival=1, loss=np.log(2))
    >>> center.tolist(), round(squared_radius, 6)
    ([-2.0, 0.0], 8.0)
    """
    (m_y, m_r), (s_y, s_r), (b_y, b_r) = _pair(model, label, rival, loss)
    if s_y == s_r:
        raise ValueError("the contours of classes of equal scale are hyperplanes: use `hyperplane`")
    apart = s_y * s_r * np.sum((m_y - m_r) ** 2) / (s_y - s_r) ** 2
    squared = apart + (b_y - b_r + _log_expm1(loss)) / (s_y - s_r)
    return Sphere((s_y * m_y - s_r * m_r) / (s_y - s_r), float(squared))


@checked(host=True, points=(1, INF))
def contour_deviation(
    model: GSCE, label: int, rival: int, loss: float, points: int = 100, seed: int = 0
) -> float:
    """Theorem 1: the largest |loss - C| at random points of the sphere of C.

    Args:
      model, label, rival, loss: see `contour`.
      points: their number.
      seed: for the points.

    Raises:
      ValueError: no feature has that loss.

    Guarantees:
      Zero, up to rounding.

    >>> model = rj.theory.GSCE(np.array([[0, 0], [2, 0]]), np.array([2, 1]), np.zeros(2))
    >>> rj.theory.contour_deviation(model, label=0, rival=1, loss=1.0) < 1e-12
    True
    """
    center, squared = contour(model, label, rival, loss)
    if squared < 0:
        raise ValueError(f"no feature has the loss {loss}; see `extreme_loss`")
    directions = np.random.default_rng(seed).standard_normal((points, len(center)))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    losses = model.pair_loss(center + np.sqrt(squared) * directions, label, rival)
    return float(np.abs(losses - loss).max())


@checked(host=True)
def extreme_loss(model: GSCE, label: int, rival: int) -> float:
    """The loss at the center M of the spheres: the smallest loss if s_y > s_r, else the largest.

    log(1 + exp(-(s_y - s_r) B)), where B is the R^2 of C = log 2.

    Guarantees:
      R^2 < 0 exactly below it if s_y > s_r, and exactly above it if s_y < s_r.

    >>> model = rj.theory.GSCE(np.array([[0, 0], [2, 0]]), np.array([2, 1]), np.zeros(2))
    >>> round(rj.theory.extreme_loss(model, label=0, rival=1), 6)  # log(1 + exp(-8))
    0.000335
    """
    at_log_2 = contour(model, label, rival, float(np.log(2))).squared_radius
    return float(np.logaddexp(0, -(model.scales[label] - model.scales[rival]) * at_log_2))


@checked(host=True)
def hyperplane(model: GSCE, label: int, rival: int, loss: float) -> Hyperplane:
    """The hyperplane on which log(1 + exp(h_rival - h_label)) is `loss`, for equal scales s.

        2 s (m_y - m_r) . z = s (|m_y|^2 - |m_r|^2) - (b_y - b_r) - log(e^C - 1)

    It is unbounded: the loss constrains one direction of the features and leaves the others free.

    Args:
      model: the parameters of g-SCE.
      label, rival: two classes of equal scale.
      loss: C > 0.

    Raises:
      ValueError: different scales (then the contour is a sphere), two classes that are the same or
        do not exist, classes with the same center or with scale 0 (then there is no contour), or a
        loss <= 0.

    Guarantees:
      Every point of the hyperplane has the loss C, however far away it is.

    At the loss log 2 it is the decision boundary, half way between the centers:

    >>> model = rj.theory.GSCE(np.array([[0, 0], [2, 0]]), np.ones(2), np.zeros(2))
    >>> normal, offset = rj.theory.hyperplane(model, label=0, rival=1, loss=np.log(2))
    >>> normal.tolist(), round(offset, 6)
    ([-1.0, 0.0], -1.0)
    """
    (m_y, m_r), (s_y, s_r), (b_y, b_r) = _pair(model, label, rival, loss)
    if s_y != s_r:
        raise ValueError("the contours of classes of different scales are spheres: use `contour`")
    normal = 2 * s_y * (m_y - m_r)
    level = s_y * (m_y @ m_y - m_r @ m_r) - (b_y - b_r) - _log_expm1(loss)
    length = np.linalg.norm(normal)
    if length == 0:
        raise ValueError("classes with the same center, or scale 0, have the same loss everywhere")
    return Hyperplane(normal / length, float(level / length))


@checked(host=True, points=(1, INF))
def hyperplane_deviation(
    model: GSCE, label: int, rival: int, loss: float, points: int = 100, seed: int = 0
) -> float:
    """The largest |loss - C| at random points of the hyperplane of C.

    Args:
      model, label, rival, loss: see `hyperplane`.
      points: their number.
      seed: for the points.

    Guarantees:
      Zero, up to rounding.

    >>> model = rj.theory.GSCE(np.array([[0, 0], [2, 0]]), np.ones(2), np.zeros(2))
    >>> rj.theory.hyperplane_deviation(model, label=0, rival=1, loss=0.1) < 1e-12
    True
    """
    normal, offset = hyperplane(model, label, rival, loss)
    found = np.random.default_rng(seed).standard_normal((points, len(normal)))
    found += np.outer(offset - found @ normal, normal)
    return float(np.abs(model.pair_loss(found, label, rival) - loss).max())


@checked(host=True, logits="L>1")
def strongest_rival_slack(logits: np.ndarray, label: int) -> float:
    """Eq. 6 keeps one of the L - 1 rivals; the error this makes lies in [0, log(L - 1)].

    Args:
      logits: (L,).
      label: y.

    Returns:
      The distance of the error to the nearer end of that interval; outside it would be negative.

    Raises:
      ValueError: fewer than two logits, or a label outside [0, L).

    Guarantees:
      Never negative, up to rounding. Zero for a single rival, and for L - 1 equal rivals that leave
      the label no probability.

    >>> round(rj.theory.strongest_rival_slack(np.array([3.0, 1.0, 0.0]), label=0), 4)
    0.0429
    """
    check_number("the number of logits", len(logits), 2)
    check_number("label", label, 0, len(logits) - 1)
    exact = logsumexp(logits) - logits[label]
    kept = np.logaddexp(0, np.delete(logits, label).max() - logits[label])
    return float(min(exact - kept, np.log(len(logits) - 1) - (exact - kept)))


def _pair(model: GSCE, label: int, rival: int, loss: float) -> list[np.ndarray]:
    """Centers, scales and biases of two classes, after checking the classes and the loss."""
    if not loss > 0:
        raise ValueError(f"the loss must be positive, got {loss}")
    classes = range(len(model.centers))
    if label == rival or label not in classes or rival not in classes:
        raise ValueError(
            f"label and rival must be two of the {len(classes)} classes, got {label} and {rival}"
        )
    return [part[[label, rival]] for part in model]


def _log_expm1(loss: float) -> float:
    """log(e^C - 1), without overflow for large C."""
    return loss + np.log(-np.expm1(-loss))
