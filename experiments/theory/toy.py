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

import itertools
from pathlib import Path

import matplotlib
import numpy as np
import script
from figures import CLASS_COLORS
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure

from robustjax import centers, report, theory
from robustjax.report.figures import STYLE

POINTS, CLASSES = 1000, 3
PASSES = {5: 250, 20: 200, 1000: 100}  # by batch size
FRAMES, DRAWN, TRACKED = 40, 90, 12  # points drawn, and of these, with their paths
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


def main() -> dict:
    means, found = courses()
    frames = {f"{loss} {batch}": shown(course) for (loss, batch), course in found.items()}
    labels = next(iter(found.values())).labels[:DRAWN]
    return numbers_of(means, found) | {"arrays": frames | {"labels": labels.astype(np.uint8)}}


def shown(course):
    """Some points after each of the first passes, and after as many of the others: (T, N, 2)."""
    last = len(course.positions) - 1
    later = np.linspace(min(FRAMES, last), last, FRAMES).astype(int)
    passes = np.unique([*range(min(FRAMES, last)), *later])
    return course.positions[passes, :DRAWN].astype(np.float16)


def draw(results: dict, png: Path) -> None:
    """All six courses side by side: where they end; and the same, moving, a frame a pass."""
    points = {name: places.astype(float) for name, places in results["arrays"].items()}
    with report.figure(png, len(PASSES), len(TITLES), (2.8, 2.9)) as axes:
        draw_all(axes, points, -1)
        legend(axes)
    writer = PillowWriter(fps=8)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 5.8))
        axes = list(figure.subplots(len(TITLES), len(PASSES)).flat)
        with writer.saving(figure, png.with_suffix(".gif"), dpi=60):
            for until in range(FRAMES):
                for ax in axes:
                    ax.clear()
                draw_all(axes, points, until)
                writer.grab_frame()


def draw_all(axes, points, until):
    """A panel a course, after some passes; the last is -1."""
    labels = points["labels"]
    for ax, (loss, batch) in zip(axes, itertools.product(TITLES, PASSES), strict=True):
        places = points[f"{loss} {batch}"][: until + 1 or None]
        for point in range(TRACKED):
            color = CLASS_COLORS[labels.astype(int)[point]]
            ax.plot(*places[:, point].T, color=color, linewidth=0.8, alpha=0.5)
        for label in range(CLASSES):
            own = places[:, labels == label]
            ax.plot(*own[-1].T, ".", color=CLASS_COLORS[label], markersize=4, alpha=0.7)
        title = f"{TITLES[loss]}, batches of {batch}"
        ax.set(title=title, xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)


def legend(axes):
    """What the colours are, below the panels."""
    for label in range(CLASSES):
        look = {"color": CLASS_COLORS[label], "linewidth": 0.8}
        axes[0].plot([], [], "o-", **look, label=f"class {label}: ways and ends")
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


if __name__ == "__main__":
    script.run(__file__, __doc__, main, draw)
