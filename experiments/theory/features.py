"""Sample density of trained features: MMC's lie denser than those of the softmax losses.

Command:   python experiments/theory/features.py
Hardware:  two cores; about a minute, for three small networks on the bundled digits.
Claim:     per distance between classes, the median log density of MMC's features (d = 10, k = 20)
           is higher than SCE's and MMLDA's, on training and on test images; and where Theorem 2
           says that it grows as the loss C falls, the measured densities do.
Measured:  results/theory/features.json and .png.
Source:    Pang et al., ICLR 2020, Section 3; the talk shows no figures for trained networks.
"""

import tempfile
from pathlib import Path

import numpy as np
import script
from densities import log_densities
from figures import LOSS_COLORS, plain_ticks
from scipy.stats import spearmanr

from robustjax import data, models, report, training

METHODS = {  # the loss, and a learning rate that suits it
    "SCE": (training.SCE(feature_dim=10), 0.05),
    "MMLDA": (training.MMLDA(feature_dim=10), 0.02),
    "MMC": (training.MMC(feature_dim=10), 0.02),
}
EPOCHS, WIDTH, K = 20, 16, 20


def features_of(method, lr, sets):
    """The features of both sets under a network trained on the first."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = training.Recipe(
            epochs=EPOCHS,
            batch_size=64,
            lr=lr,
            schedule=training.SCHEDULES["one-cycle"],
            augment=data.default_augment("digits", sets["train"].image_shape),
        )
        validation = data.load("digits", "validation")
        model = {"name": "cnn", "width": WIDTH}
        how = {"model": model, "out": Path(folder) / "run", "seed": script.SEED, "progress": False}
        training.fit(method, sets["train"], validation, recipe=recipe, **how)
        _, features_fn, _ = models.load(Path(folder) / "run", weights="last")
    return {name: np.asarray(features_fn(data.to_float(s.images))) for name, s in sets.items()}


def main() -> dict:
    sets = {name: data.load("digits", name) for name in ("train", "test")}
    found = {name: features_of(*how, sets) for name, how in METHODS.items()}
    labels = sets["train"].labels
    densities = {name: log_densities(z["train"], labels, z["test"], K) for name, z in found.items()}
    head = models.create("cnn", num_classes=10, head="max-mahalanobis", feature_dim=10)
    away = found["MMC"]["train"] - head.head.constant(10)[sets["train"].labels]
    loss = 0.5 * np.sum(away**2, 1)
    correlation = spearmanr(loss, densities["MMC"]["train"]).statistic
    points = {f"{name} {part}": v for name, row in densities.items() for part, v in row.items()}
    points |= {"MMC loss": loss}
    return {
        "median_log_density": {
            name: {part: np.median(values) for part, values in log_density.items()}
            for name, log_density in densities.items()
        },
        "rank_correlation_of_loss_and_density": correlation,
        "arrays": {name: values.astype(np.float32) for name, values in points.items()},
    }


def draw(results: dict, png: Path) -> None:
    """The distribution of the densities, and MMC's over its loss."""
    points = results["arrays"]
    with report.figure(png, 2, 1, (4.8, 3.4)) as (left, right):
        for name in METHODS:
            for part, style in (("train", "-"), ("test", "--")):
                x = np.sort(points[f"{name} {part}"])
                y = 100 * np.arange(len(x)) / len(x)
                left.plot(x, y, style, color=LOSS_COLORS[name], label=f"{name}, {part}")
        left.set(xlabel="log density, per distance between classes", ylabel="features below it, %")
        handles = left.get_legend_handles_labels()
        left.figure.legend(*handles, loc="outside lower left", ncols=3)
        right.plot(
            points["MMC loss"], points["MMC train"], ".", color=LOSS_COLORS["MMC"], markersize=2
        )
        right.set(xscale="log", xlabel="MMC loss C", ylabel="log density", title="MMC, train")
        plain_ticks(right.xaxis)


if __name__ == "__main__":
    script.run(__file__, __doc__, main, draw)
