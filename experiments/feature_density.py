"""Sample density of CIFAR-10's features: do MMC's lie denser than those of the softmax losses?

Command:   python experiments/feature_density.py --scale cpu --data-dir DIR   (DIR: prepared TFDS
           sets; --only MMC for one loss; --scale smoke: the path alone, on digits)
Hardware:  smoke: half a minute of one CPU core; cpu: a network of two convolutions, the first
           10,000 images, 8 epochs, three seeds, eight minutes of one core.
Claim:     MMC gathers the features of a class round its center and so raises the sample density,
           which the softmax losses cannot.
Measured:  cpu: 15.2 for MMC, 12.2 for SCE and 12.0 for MMLDA on test images, with little scatter.
           results/feature_density_{data}_{scale}.json; docs/reproduce/mmc.md.
Source:    Pang et al., ICLR 2020, Section 3, whose theorems are about the density; it shows none of
           trained networks. On digits: theory/features.py.

All heads have ten features. The log density is that of the 20 nearest training features, per
distance between classes; medians over images.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from densities import log_densities
from mmc_attacks import NATURAL
from runner import Scale, launch, merged, once, over_seeds, scaled, slug, spread, tabulate, trained

from robustjax import data, files, models

ROWS = {"SCE": "sce", "MMLDA": "mmlda", "MMC": "mmc"}
FEATURES, K = 10, 20
SCALES = {
    "smoke": Scale("--model cnn --width 4 --epochs 2", "", 1),
    "cpu": Scale("--model cnn --width 32 --examples 10000 --epochs 8", "", 3),
}


def measure(name: str, seed: int, scale: Scale, options: argparse.Namespace) -> dict[str, Any]:
    """Train one network; its accuracy, and the median log density of its features."""
    where = f"density-{slug(options.data)}-{options.scale}"
    run = options.runs / where / f"{ROWS[name]}-seed-{seed}"
    words = merged(NATURAL, scale.train, f"--feature-dim {FEATURES} --seed {seed}")
    trained(run, [ROWS[name], *words], options)

    def densities() -> dict[str, Any]:
        logits_fn, features_fn, config = models.load(run, weights="last")
        train, test = (data.load(options.data, s, options.data_dir) for s in ("train", "test"))
        train, images = train.head(config["data"]["size"]), data.to_float(test.images)
        z = np.asarray(features_fn(data.to_float(train.images)))
        found = log_densities(z, train.labels, np.asarray(features_fn(images)), K)
        right = np.asarray(logits_fn(images)).argmax(-1) == test.labels
        medians = {part: float(np.median(values)) for part, values in found.items()}
        return {"clean": float(right.mean()), **medians}

    origin = files.read_json(run / "training.json")["provenance"]
    return {"seed": seed, **once(run / "density.json", densities), "training": origin}


def lines(table: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A Markdown table: means and deviations over the seeds."""
    made = ["| | clean | density, train | density, test |", "| --- | ---: | ---: | ---: |"]
    for name, seeds in table.items():
        units = {"clean": 100, "train": 1, "test": 1}
        cells = [spread((seed[column] for seed in seeds), unit) for column, unit in units.items()]
        made.append(f"| {name} | {' | '.join(cells)} |")
    return made


def main(options: argparse.Namespace) -> None:
    """Make what is missing; the table is written after each row."""
    made = over_seeds(measure, SCALES[options.scale], options)
    tabulate(options, ROWS, made, lines)


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "feature_density")
