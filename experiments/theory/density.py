"""Contours of a loss and the density of features on them: the exact exponent and the stated one.

Command:   python experiments/theory/density.py
Hardware:  one core; about 10 seconds.
Claim:     contours of the loss are the predicted spheres and lines to 1e-9; on a normal class the
           exact density is within 5 % of the truth in every bin, and the stated one falls with C,
           as 1 / sqrt(2 C).
Measured:  results/theory/density.json and .png.
Source:    Pang et al., ICLR 2020, Theorems 1 and 2; the exact constants are derived in
           robustjax.theory.density.
"""

from pathlib import Path

import numpy as np
import script
from matplotlib.patches import Circle

from robustjax import report, theory
from robustjax.report.figures import COLORS

COUNT, DIM, WIDTH = 1_000_000, 8, 0.7
CONTOUR = COLORS[1]
LOSSES = (0.1, 0.3, 1.0, 3.0)
CENTERS, BIASES = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0.2, 0.0])
UNLIKE = theory.GSCE(CENTERS, np.array([1.0, 0.5]), BIASES)
ALIKE = theory.GSCE(CENTERS, np.array([0.7, 0.7]), BIASES)


def normal_class():
    """Both densities over the truth, at the middle of bins of equal count."""
    z = WIDTH * np.random.default_rng(script.SEED).standard_normal((COUNT, DIM))
    losses = np.sum(z**2, 1) / 2
    edges = np.quantile(losses, np.linspace(0.03, 0.97, 38))
    mass = np.histogram(losses, edges)[0] / np.diff(edges)
    middle = (edges[1:] + edges[:-1]) / 2
    truth = COUNT * (2 * np.pi * WIDTH**2) ** (-DIM / 2) * np.exp(-middle / WIDTH**2)
    shell = theory.mmc_shell(middle)
    return {
        "loss": middle,
        "exact": theory.density_exact(mass, shell, DIM) / truth,
        "paper": theory.density_paper(mass, shell, DIM) / truth,
    }


def spheres(extreme):
    """Losses that have a contour, from the smallest that does."""
    return [extreme * factor for factor in (1.5, 3, 8, 20)]


def main() -> dict:
    extreme = theory.extreme_loss(UNLIKE, 0, 1)
    return {
        "sphere_deviation": max(
            theory.contour_deviation(UNLIKE, 0, 1, c) for c in spheres(extreme)
        ),
        "line_deviation": max(theory.hyperplane_deviation(ALIKE, 0, 1, c) for c in LOSSES),
        "smallest_loss_with_a_contour": extreme,
        "normal_class": normal_class(),
    }


def draw(results: dict, png: Path) -> None:
    """The contours of two models over their losses, and both densities over the truth."""
    numbers = results["numbers"]
    with report.figure(png, 3, 1, (4.0, 3.3)) as (left, middle, right):
        draw_loss(left, UNLIKE, "precisions differ: spheres")
        for loss in spheres(numbers["smallest_loss_with_a_contour"]):
            center, squared = theory.contour(UNLIKE, 0, 1, loss)
            left.add_patch(Circle(center, np.sqrt(squared), fill=False, color=CONTOUR))
        draw_loss(middle, ALIKE, "equal precisions: lines without end")
        for loss in LOSSES:
            middle.axvline(theory.hyperplane(ALIKE, 0, 1, loss).offset, color=CONTOUR)
        left.plot([], [], color=CONTOUR, label="predicted contour of the loss")
        handles = left.get_legend_handles_labels()
        left.figure.legend(*handles, loc="outside lower left", ncols=3)
        ratios = numbers["normal_class"]
        right.plot(ratios["loss"], ratios["exact"], "-", label="exact")
        right.plot(ratios["loss"], ratios["paper"], "--", label="as the paper states it")
        title = f"MMC, a normal class in {DIM} dimensions"
        right.set(xlabel="loss C", ylabel="density over the true one", ylim=(0, None), title=title)
        right.legend()


def draw_loss(ax, model, title):
    """The loss on a grid, darker where it is larger, and the centers."""
    x, y = np.meshgrid(np.linspace(-3, 9, 200), np.linspace(-5, 5, 200))
    loss = model.pair_loss(np.stack([x, y], -1), 0, 1)
    ax.contourf(x, y, np.log(loss), levels=30, cmap="Greys", alpha=0.6)
    for center, mark, label in zip(CENTERS, "+x", ("label", "other class"), strict=True):
        how = {"linestyle": "", "color": "k", "markersize": 8, "markeredgewidth": 1.5}
        ax.plot(*center, mark, label=f"center of the {label}", **how)
    ax.set(title=title, aspect="equal", xticks=[], yticks=[], xlim=(-3, 9), ylim=(-5, 5))
    ax.set(xlabel="first feature", ylabel="second feature")


if __name__ == "__main__":
    script.run(__file__, __doc__, main, draw)
