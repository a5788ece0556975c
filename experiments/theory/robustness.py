"""How far normal features lie from the decision boundary, and which centers put them furthest.

Command:   python experiments/theory/robustness.py
Hardware:  one core; about 10 seconds.
Claim:     sampled distances agree with E d of Theorem 1 within 4 standard errors at every Delta;
           RB of Max-Mahalanobis centers is above that of every set of random centers.
Measured:  results/theory/robustness.json and .png.
Source:    Pang et al., ICML 2018, Theorem 1.
"""

from pathlib import Path

import numpy as np
import script
from figures import LOSS_COLORS

from robustjax import centers, report, theory

DELTAS = (0.25, 0.5, 1, 1.5, 2, 3, 4, 5)
SAMPLES = 1_000_000
CLASSES, DIM, RADIUS, DRAWS = (2, 3, 5, 10, 20, 50, 100), 128, 10.0, 50


def sample_distances():
    """Two classes in three dimensions, with a covariance that is far from round."""
    rows = []
    for seed, delta in enumerate(DELTAS, script.SEED):
        root = np.array([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [-0.3, 0.2, 1.0]])
        direction = np.array([0.6, 0.0, 0.8])
        means = np.stack([0 * direction, root @ (delta * direction)])
        mean, error = theory.sampled_distance(means, root @ root.T, samples=SAMPLES, seed=seed)
        expected = float(theory.expected_distance(delta))
        row = {"delta": delta, "sampled": mean, "standard_error": error, "expected": expected}
        rows.append(row | {"deviation": (mean - expected) / error})
    return rows


def compare_centers():
    rows = []
    for classes in CLASSES:
        simplex = centers.max_mahalanobis(classes, DIM, RADIUS)
        drawn = [
            theory.robustness(centers.random(classes, DIM, RADIUS, seed)) for seed in range(DRAWS)
        ]
        rows.append(
            {
                "classes": classes,
                "max_mahalanobis": theory.robustness(simplex),
                "bound_slack": theory.bound_slack(simplex),
                "random_mean": np.mean(drawn),
                "random_range": [min(drawn), max(drawn)],
            }
        )
    return rows


def main() -> dict:
    return {"distances": sample_distances(), "centers": compare_centers()}


def draw(results: dict, png: Path) -> None:
    """Theorem 1 and samples, and RB over the number of classes."""
    sampled, compared = results["numbers"]["distances"], results["numbers"]["centers"]
    with report.figure(png, 2, 1, (4.6, 3.4)) as (left, right):
        delta = np.linspace(0, 5.2, 200)
        left.plot(delta, theory.expected_distance(delta), "k-", label="E d, Theorem 1")
        left.plot(delta, delta / 2, "k--", linewidth=1, label="Δ / 2")
        points = [(row["delta"], row["sampled"]) for row in sampled]
        left.plot(*np.transpose(points), "k.", markersize=8, label="sampled")
        left.set(xlabel="Mahalanobis distance Δ of two classes")
        left.set(ylabel="distance to the decision boundary")
        left.legend()
        classes, color = [row["classes"] for row in compared], LOSS_COLORS["MMC (rand)"]
        best = [row["max_mahalanobis"] for row in compared]
        right.plot(classes, best, "o-", color=LOSS_COLORS["MMC"], label="Max-Mahalanobis centers")
        label = f"random centers, mean and range of {DRAWS}"
        means = [row["random_mean"] for row in compared]
        right.plot(classes, means, "o-", color=color, label=label)
        ranges = np.transpose([row["random_range"] for row in compared])
        right.fill_between(classes, *ranges, color=color, alpha=0.2, lw=0)
        right.set(
            xscale="log",
            xlabel="number of classes",
            ylabel="RB, the smallest expected distance",
            ylim=(0, None),
        )
        right.set_title(f"centers of norm {RADIUS:g}")
        right.set_xticks(classes, classes)
        right.minorticks_off()
        right.legend(loc="lower left")


if __name__ == "__main__":
    script.run(__file__, __doc__, main, draw)
