"""Pictures of the centers: simplices for L = 2, 3, 4, packings beyond.

Command:   python experiments/theory/arrangements.py
Hardware:  one core; about 5 seconds.
Claim:     segment, triangle, tetrahedron, polygon, square antiprism (largest cosine .26120) and
           icosahedron (.44721); their largest cosines are the known optima to 1e-5.
Measured:  results/theory/arrangements.json and .png.
Source:    Pang et al., ICML 2018; Schuette & van der Waerden 1951; Fejes Toth 1943.
"""

from pathlib import Path

import numpy as np
import script
from figures import LOSS_COLORS

from robustjax import centers, report

SHOWN = {
    (2, 1): ("segment", -1.0),
    (3, 2): ("triangle", -1 / 2),
    (4, 3): ("tetrahedron", -1 / 3),
    (10, 2): ("polygon", np.cos(np.pi / 5)),
    (8, 3): ("square antiprism", 0.26120),
    (12, 3): ("icosahedron", 5**-0.5),
}


def main() -> dict:
    rows = []
    for (classes, dim), (name, optimum) in SHOWN.items():
        found = centers.packing(classes, dim, seed=script.SEED)
        smallest = centers.smallest_distance(found)
        cosine = 1 - smallest**2 / 2
        rows.append(
            {"classes": classes, "dim": dim, "name": name, "smallest_distance": smallest}
            | {"largest_cosine": cosine, "above_optimum": cosine - optimum}
            | {"centers": np.round(found, 6)}
        )
    return {"arrangements": rows}


def draw(results: dict, png: Path) -> None:
    """A panel an arrangement."""
    rows = results["numbers"]["arrangements"]
    with report.figure(png, 3, 2, (2.6, 2.6), subplot_kw={"projection": "3d"}) as axes:
        for ax, row in zip(axes, rows, strict=True):
            title = f"{row['classes']} classes, {row['dim']}-D: {row['name']}"
            draw_points(ax, np.array(row["centers"]), title)


def draw_points(ax, found, title):
    """Points, and a line between any two that are as close as the closest pair."""
    flat = np.zeros((len(found), 3))
    flat[:, : found.shape[1]] = found
    distances = centers.pairwise_distances(found)
    near = distances < 1.001 * centers.smallest_distance(found)
    for i, j in np.argwhere(np.triu(near, 1)):
        ax.plot(*flat[[i, j]].T, color="0.4", linewidth=1)
    ax.scatter(*flat.T, color=LOSS_COLORS["MMC"], s=30, depthshade=False)
    ax.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1), xticks=[], yticks=[], zticks=[])
    ax.set_title(title, loc="center")
    ax.set_box_aspect((1, 1, 1), zoom=1.3)
    ax.set_axis_off()
    if found.shape[1] < 3:
        ax.view_init(90, -90)


if __name__ == "__main__":
    script.run(__file__, __doc__, main, draw)
