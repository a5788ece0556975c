"""1000 free points in the plane under MMC and under Center loss, with batches of 5, 20 and 1000.

Command:   python experiments/theory/toy.py
Hardware:  one core; about 30 seconds, most of them for the animation.
Claim:     under MMC every visit shrinks the distance to the center by .9 (to 1e-6), on a straight
           line, whatever the batch size; under Center loss paths are on average more than 1.1
           times as long as their chords, and end elsewhere for another batch size.
Measured:  results/theory/toy.json, .png and .gif.
Source:    the animations {MMC,centerloss}_num1000_sgd{5,20,1000} of Pang et al., ICLR 2020: passes
           and the step of 0.1 are theirs, classes, starts and the learned head are not published.
"""

from pathlib import Path

import matplotlib
import script
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure

from robustjax import centers, report, theory
from robustjax.report.figures import COLORS, STYLE

POINTS, CLASSES = 1000, 3
PASSES = {5: 250, 20: 200, 1000: 100}  # by batch size
FRAMES, TRACKED = 40, 6  # points drawn with their paths
TITLES = {"mmc": "MMC", "center": "Center loss"}


def courses():
    means = centers.max_mahalanobis(CLASSES, 2).astype(float)
    functions = {"mmc": theory.mmc_course, "center": theory.center_loss_course}
    return means, {
        (loss, batch): course(means, POINTS, batch, passes, seed=script.SEED)
        for loss, course in functions.items()
        for batch, passes in PASSES.items()
    }


def numbers_of(means, found):
    rows = []
    for (loss, batch), course in found.items():
        ratios = theory.path_ratio(course)
        row = {"loss": loss, "batch_size": batch, "path_over_chord_mean": ratios.mean()}
        row["path_over_chord_max"] = ratios.max()
        row["first_point_ends_at"] = course.positions[-1, 0]
        if loss == "mmc":
            row["contraction_deviation"] = theory.contraction_deviation(course, means)
        rows.append(row)
    return {"courses": rows}


def draw(ax, course, title, until):
    """All points after some passes, and the paths of a few up to there."""
    now = course.positions[until]
    for label in range(CLASSES):
        ax.plot(*now[course.labels == label].T, ".", color=COLORS[label], markersize=2, alpha=0.5)
    for point in range(TRACKED):
        path = course.positions[: until + 1, point]
        ax.plot(*path.T, color="k", linewidth=1)
        ax.plot(*path[-1], "o", color=COLORS[course.labels[point]], markersize=5, mec="k")
    ax.set(title=title, xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def animate(found, gif):
    """All six courses side by side, a frame a pass."""
    writer = PillowWriter(fps=8)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 5.8))
        axes = list(figure.subplots(len(TITLES), len(PASSES)).flat)
        with writer.saving(figure, gif, dpi=60):
            for until in range(FRAMES):
                for ax, ((loss, batch), course) in zip(axes, found.items(), strict=True):
                    ax.clear()
                    draw(ax, course, f"{TITLES[loss]}, batch {batch}", until)
                writer.grab_frame()


def main(folder: Path) -> dict:
    means, found = courses()
    with report.figure(folder / "toy.png", len(PASSES), len(TITLES), (2.8, 2.9)) as axes:
        for ax, ((loss, batch), course) in zip(axes, found.items(), strict=True):
            draw(ax, course, f"{TITLES[loss]}, batch {batch}", PASSES[batch])
    animate(found, folder / "toy.gif")
    return numbers_of(means, found)


if __name__ == "__main__":
    script.run(__file__, __doc__, main)
