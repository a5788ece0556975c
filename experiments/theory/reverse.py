"""How close a reversed softmax comes to one-hot and to uniform: Theorem 2's two bounds.

Command:   python experiments/theory/reverse.py
Hardware:  one core; about 5 seconds.
Claim:     neither bound is violated at any error alpha < 1 / (L - 1), far beyond the theorem's
           alpha << 1 / L, and above it they say nothing; both become equalities as alpha goes to
           zero, but with three classes the second stays twice what can be.
Measured:  results/theory/reverse.json and .png.
Source:    Pang et al., NeurIPS 2018, Theorem 2.
"""

from pathlib import Path

import numpy as np
import script
from figures import plain_ticks

from robustjax import report, theory

CLASSES = (3, 5, 10, 100)
FRACTIONS = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99)
SAMPLES = 20_000


def used(probabilities):
    """The parts of the two bounds that these F (N, L) of label 0 use up, (2, N)."""
    labels = np.zeros(len(probabilities), int)
    error = theory.reverse_error(probabilities, labels)
    first = error * (probabilities.shape[-1] - 1) ** 2
    slacks = theory.one_hot_slack, theory.uniformity_slack
    bounds = first, 2 * error * first
    return np.stack(
        [1 - slack(probabilities, labels) / b for slack, b in zip(slacks, bounds, strict=True)]
    )


def measure(classes):
    rows = []
    for seed, fraction in enumerate(FRACTIONS, script.SEED):
        alpha = fraction / (classes - 1)
        sampled = theory.sampled_probabilities(classes, alpha, SAMPLES, seed)
        error = theory.reverse_error(sampled, np.zeros(SAMPLES, int))
        sampled = sampled[error > 0.98 * alpha]  # the others are further left in the figure
        extreme = theory.extreme_probabilities(classes, alpha)
        rows.append(
            {
                "error_over_largest": fraction,
                "extreme": used(extreme[None])[:, 0],
                "sampled_most": used(sampled).max(1),
            }
        )
    return {"classes": classes, "bounds_used": rows}


def main() -> dict:
    return {"theorem_2": [measure(classes) for classes in CLASSES]}


def draw(results: dict, png: Path) -> None:
    """The part of each bound that is used, over the error."""
    titles = (
        r"one-hot: $\|G - 1_y\|_\infty\,/\,\alpha (L-1)^2$",
        r"uniform: $|G_j - G_k|\,/\,2 \alpha^2 (L-1)^2$",
    )
    with report.figure(png, 2, 1, (4.6, 3.4), sharey=True) as panels:
        for which, (ax, title) in enumerate(zip(panels, titles, strict=True)):
            for color, row in enumerate(results["numbers"]["theorem_2"]):
                lines = row["bounds_used"]
                x = [line["error_over_largest"] for line in lines]
                most = [line["sampled_most"][which] for line in lines]
                extreme = [line["extreme"][which] for line in lines]
                ax.plot(x, extreme, color=f"C{color}", label=f"{row['classes']} classes")
                ax.plot(x, most, ".", color=f"C{color}")
            ax.set(xscale="log", ylim=(0, 1.05), xlabel="error α, in units of 1 / (L − 1)")
            ax.set_title(title)
            plain_ticks(ax.xaxis)
        panels[0].set_ylabel("part of the bound that is used")
        panels[0].plot([], [], "k-", label="extreme F")
        panels[0].plot([], [], "k.", label="most of 20,000 random F")
        panels[0].legend(fontsize=8)


if __name__ == "__main__":
    script.run(__file__, __doc__, main, draw)
