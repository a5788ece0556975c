"""How far features must move to be misclassified, and to be misclassified and look normal.

The head is linear, so this is geometry in the features, without an attack that may fail. z0 is a
clean image's feature vector, z1 the nearest one that is classified otherwise, z2 the nearest one
that is classified otherwise with a non-ME of at least a detector's threshold (Pang et al., NeurIPS
2018, Sec. 3.2: reverse training leaves only a thin set of those).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.manifold import TSNE

from robustjax import report


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


def draw_domains(nets: dict[str, tuple[Head, np.ndarray, float]], png: Path) -> None:
    """The plane through z0, z1 and z2: the classes, non-ME isolines, and the threshold's in black.

    Args:
      nets: name -> (head, z0, threshold of the non-ME).
      png: where it goes.
    """
    with report.figure(png, len(nets), 1, (4.8, 4.2)) as axes:
        for ax, (name, (head, z0, least)) in zip(axes, nets.items(), strict=True):
            z1, z2 = nearest_wrong(head, z0), nearest_unnoticed(head, z0, least)
            far = z0 + 2 * (z1 - z0) if z2 is None else z2
            unit, across = plane(z1 - z0, far - z0)
            scale = np.linalg.norm(z1 - z0)
            places = np.array([[v @ unit, v @ across] for v in (0 * z0, z1 - z0, far - z0)]) / scale
            low, high = places.min(0), places.max(0)
            half = 0.85 * max(high - low)
            x, y = (np.linspace(c - half, c + half, 220) for c in (low + high) / 2)
            grid = np.stack(np.meshgrid(x, y), -1) * scale
            logits = head.logits(z0 + grid[..., :1] * unit + grid[..., 1:] * across)
            classes, entropy = logits.argmax(-1), non_me(logits)
            bounds = np.arange(logits.shape[-1] + 1) - 0.5
            ax.contourf(x, y, classes, bounds, cmap="tab10", alpha=0.3)
            levels = np.unique(np.round(np.quantile(entropy, np.linspace(0.1, 0.9, 6)), 4))
            ax.contour(x, y, entropy, levels, colors="0.5", linewidths=0.7)
            ax.contour(x, y, entropy, [least], colors="k", linewidths=1.6)
            apart = z2 is not None and np.linalg.norm(places[2] - places[1]) > 0.02
            labels = ("z0", "z1", "z2") if apart else ("z0", "z1" if z2 is None else "z1 = z2")
            for place, label in zip(places, labels, strict=False):
                ax.plot(*place, "ko", markersize=5)
                ax.annotate(label, place, xytext=(5, 5), textcoords="offset points")
            ax.set(title=f"{name}: non-ME {least:.3f} in black", xlabel="in units of |z1 - z0|")
            ax.set_aspect("equal")
            ax.grid(False)


def plane(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal vectors of the plane through 0, u and v; any second one if v is along u."""
    first = u / np.linalg.norm(u)
    second = v - (v @ first) * first
    if np.linalg.norm(second) < 1e-6 * np.linalg.norm(v):
        second = np.eye(len(u))[np.abs(first).argmin()]
        second -= (second @ first) * first
    return first, second / np.linalg.norm(second)


def draw_features(nets: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], png: Path) -> None:
    """t-SNE of the last features: clean images coloured by class, adversarial ones as crosses.

    Args:
      nets: name -> (clean features (N, D), labels (N,), adversarial features (M, D)).
      png: where it goes.
    """
    with report.figure(png, len(nets), 1, (4.6, 4.4)) as axes:
        for ax, (name, (clean, labels, adversarial)) in zip(axes, nets.items(), strict=True):
            both = np.concatenate([clean, adversarial])
            found = TSNE(perplexity=min(30, len(both) / 4), random_state=0).fit_transform(both)
            own, other = found[: len(clean)], found[len(clean) :]
            ax.scatter(*own.T, c=labels, cmap="tab10", s=8, linewidths=0)
            ax.plot(*other.T, "kx", markersize=3, markeredgewidth=0.6)
            ax.set(title=f"{name}: crosses are adversarial", xticks=[], yticks=[])
            ax.grid(False)
