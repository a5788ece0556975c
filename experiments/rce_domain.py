"""The decision domain of RCE: three classes in the plane, and how far a feature must move in it.

Command:   python experiments/rce_domain.py --scale cpu --data mnist --data-dir DIR  (DIR: prepared
           TFDS sets; --scale smoke: the path alone, on digits)
Hardware:  smoke: a minute of one CPU core; cpu: a small CNN on three digits, two minutes of a core.
Claim:     RCE gathers the features of a class on the line where the other two are equally likely,
           which is where the non-ME is largest. To be misclassified and to keep a normal non-ME (z2
           in the figure) a feature z0 then has to move farther than to be misclassified (z1); under
           the cross-entropy hardly.
Measured:  cpu: z2 is 2.1 times as far as z1, 1.0 times under the cross-entropy (medians; accuracy
           99.0 and 98.8 %, one seed). Results go to results/rce_domain_{data}_{scale}.json, .npz
           and .png.
Source:    Pang et al., NeurIPS 2018, Section 3.2 and Figure 1a, which is a drawing; this is of two
           trained networks.

The head is linear: the lines where two logits are equal are the boundaries between two classes, and
beyond the third class, dashed, the places of the largest non-ME, log 2.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from figures import CLASS_COLORS
from rce import feature_geometry
from rce.feature_geometry import Head, non_me
from rce.pair import Measured, compare
from runner import launch, scaled, slug

from robustjax import data, models, report, training

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = {"CE": training.SCE(feature_dim=2), "RCE": training.RCE(feature_dim=2)}
CLASSES = ("0", "1", "2")
SCALES = {"smoke": (4, 20), "cpu": (16, 3)}
"""Width of the CNN, and epochs."""
SHOWN = 600
FALSE_REJECTION = 0.05


def train(name: str, options: argparse.Namespace) -> Path:
    """The run directory of one net, trained."""
    run = options.runs / f"domain-{slug(options.data)}-{options.scale}" / name.lower()
    width, epochs = SCALES[options.scale]
    recipe = training.Recipe(
        epochs=epochs,
        batch_size=64,
        lr=1e-3,
        schedule=training.SCHEDULES["one-cycle"],
        optimizer=training.Optimizer("adam", weight_decay=0.0),
        augment=data.Augment(),
    )
    sets = (split("train", options), split("validation", options))
    how = {"recipe": recipe, "model": {"name": "cnn", "width": width}, "progress": False}
    training.fit(METHODS[name], *sets, out=run, resume=True, **how)
    return run


def split(name: str, options: argparse.Namespace) -> data.Dataset:
    """The three classes' part of a split."""
    return data.load(options.data, name, options.data_dir).only(CLASSES)


def measure(name: str, options: argparse.Namespace) -> Measured:
    """Train one net; its numbers, and the features to be drawn."""
    run = train(name, options)
    logits_fn, features_fn, _ = models.load(run, weights="last")
    weights = logits_fn.args[0]["params"]["head"]
    head = Head(*(np.asarray(weights[part], float) for part in ("kernel", "bias")))

    def features(test):
        return np.asarray(jax.jit(features_fn)(data.to_float(test.images)), float)

    test = split("test", options)
    z, right = features(test), head.logits(features(test)).argmax(-1) == test.labels
    normal = non_me(head.logits(features(split("validation", options))))
    least = float(np.quantile(normal, FALSE_REJECTION))
    z0 = typical(z[right & (test.labels == test.labels[right][0])])
    z1 = feature_geometry.nearest_wrong(head, z0)
    z2 = feature_geometry.nearest_unnoticed(head, z0, least)
    usable = z[right & (non_me(head.logits(z)) >= least)][:SHOWN]
    row = {
        "accuracy": float(right.mean()),
        "images": len(test),
        "weights": head.weights.tolist(),
        "bias": head.bias.tolist(),
        "z": [z0.tolist(), z1.tolist(), None if z2 is None else z2.tolist()],
        **feature_geometry.measure(head, usable, least),
    }
    points = {name: z[:SHOWN].astype(np.float16), "labels": test.labels[:SHOWN].astype(np.uint8)}
    return row, points


def typical(features: np.ndarray) -> np.ndarray:
    """The one of these that is nearest to their mean."""
    return features[np.linalg.norm(features - features.mean(0), axis=1).argmin()]


def draw(results: dict[str, Any], png: Path) -> None:
    """A panel a net: features by class, boundaries, the lines of the largest non-ME, z0, z1, z2."""
    points, nets = results["arrays"], results["nets"]
    labels = points["labels"]
    with report.figure(png, len(nets), 1, (4.9, 4.2)) as axes:
        for ax, (name, row) in zip(axes, nets.items(), strict=True):
            head, z = Head(np.array(row["weights"]), np.array(row["bias"])), points[name]
            draw_domain(ax, head, row["threshold"], z.astype(float))
            for k, title in enumerate(CLASSES):
                look = {"s": 6, "linewidths": 0, "alpha": 0.7, "color": CLASS_COLORS[k]}
                ax.scatter(*z[labels == k].T, label=f"features of {title}", **look)
            draw_moves(ax, row["z"])
            ratio = row["z2 over z1, quartiles"]
            far = "" if ratio is None else f": z2 {ratio[1]:.1f} times as far as z1 (median)"
            ax.set(title=f"{name}{far}", xlabel="first feature", ylabel="second feature")
            ax.set_aspect("equal")
            ax.grid(False)
        handles = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(*handles, loc="outside right center", markerscale=2)


def draw_domain(ax: Axes, head: Head, least: float, z: np.ndarray) -> None:
    """The classes, the lines where two logits are equal, and the isoline of the threshold."""
    low, high = z.min(0), z.max(0)
    half = 0.55 * (high - low).max()
    x, y = (np.linspace(c - half, c + half, 400) for c in (low + high) / 2)
    logits = head.logits(np.stack(np.meshgrid(x, y), -1))
    bounds, colors = np.arange(len(CLASSES) + 1) - 0.5, CLASS_COLORS[: len(CLASSES)]
    ax.contourf(x, y, logits.argmax(-1), bounds, colors=colors, alpha=0.12)
    for i, j, k in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
        gap, other = logits[..., i] - logits[..., j], logits[..., k]
        behind = other > np.maximum(logits[..., i], logits[..., j])
        for part, style in ((behind, "--"), (~behind, "-")):
            shown = np.where(part, gap, np.nan)
            ax.contour(x, y, shown, [0], colors="k", linewidths=1.4, linestyles=style)
    ax.contour(x, y, non_me(logits), [least], colors="k", linewidths=0.8, linestyles=":")
    ax.plot([], [], "k-", linewidth=1.4, label="boundary of two classes")
    ax.plot([], [], "k--", linewidth=1.4, label="largest non-ME:\nthe other two are equal")
    ax.plot(
        [], [], "k:", linewidth=0.8, label="threshold of the non-ME,\n5 % of clean images miss it"
    )


def draw_moves(ax: Axes, places: list[list[float] | None]) -> None:
    """z0, z1 and z2, and the ways from the first to the others."""
    z0, z1, z2 = places
    alike = z2 is not None and np.allclose(z1, z2, rtol=1e-3)
    names = {"z0": z0, "z1 = z2": z1} if alike else {"z0": z0, "z1": z1, "z2": z2}
    for name, place in names.items():
        if place is not None:
            ax.plot(*np.transpose([z0, place]), color="k", linewidth=0.8)
            ax.plot(*place, "ko", markersize=5)
            how = {"textcoords": "offset points", "weight": "bold", "size": 11}
            ax.annotate(name, place, xytext=(7, -4), **how)


def main(options: argparse.Namespace) -> None:
    """Train and measure what is missing, and draw."""
    compare(options, METHODS, measure, draw)


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "rce_domain", draw, sets={"cpu": "mnist"})
