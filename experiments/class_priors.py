"""Class priors in MMLDA: do they pay where some classes have a hundred times fewer images?

Command:   python experiments/class_priors.py --scale cpu --data-dir DIR   (DIR: prepared TFDS sets;
           --only SCE for one row; --scale smoke: the path alone, on digits)
Hardware:  smoke: a minute of one CPU core; cpu: a network of two convolutions, a long tail of 6,200
           images, 15 epochs, three seeds, ten minutes of one core.
Claim:     MMLDA classifies biased data better than softmax cross-entropy (SCE), and its predictions
           and its loss may weigh the classes with their priors.
Measured:  cpu: over all classes MMLDA 43.2 % and SCE 40.0; priors in MMLDA's loss add .7, which
           three seeds cannot tell from nothing; equal priors at test time add 10 to 12 points.
           results/class_priors_{data}_{scale}.json and .png; docs/reproduce/max_mahalanobis.md.
Source:    Pang et al., ICML 2018. The long tail: Cui et al., CVPR 2019. Equal priors at test time:
           Menon et al., ICLR 2021.

The numbers of images fall geometrically from class to class. Which class is rare differs from seed
to seed, and is the same for all rows. The test set is balanced. "equal priors" subtracts log p_k
from the logits of a trained network.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import figures
import jax
import numpy as np
from figures import LOSS_COLORS
from runner import Scale, launch, merged, over_seeds, scaled, slug, spread, tabulate, trained

from robustjax import data, files, models, report
from robustjax.writing import replacing

ROWS = {  # what is trained -> the method, and whether its priors are those of the training images
    "SCE": ("sce", False),
    "MMLDA": ("mmlda", False),
    "MMLDA with priors": ("mmlda", True),
}
PRIORS = ("as trained", "equal priors")
BASE = (
    "--validation-attack none --batch-size 100 --optimizer.name adam --optimizer.weight-decay 0 "
    "--lr 0.001 --schedule one-cycle"
)


@dataclasses.dataclass(frozen=True)
class Tail(Scale):
    """The scale, and how many images the most and the least frequent class have."""

    most: int
    least: int


SCALES = {
    "smoke": Tail("--model cnn --width 4 --epochs 2", "", 1, 100, 10),
    "cpu": Tail("--model cnn --width 32 --epochs 15", "", 3, 2500, 25),
}
RARE = 3
"""The classes that count as rare."""


def long_tail(seed: int, scale: Tail, options: argparse.Namespace) -> tuple[str, np.ndarray]:
    """The name of the set's long tail, and the number of images of each class (K,)."""
    train = data.load(options.data, "train", options.data_dir)
    share = np.linspace(0, 1, train.num_classes)
    counts = np.round(scale.most * (scale.least / scale.most) ** share).astype(int)
    counts = counts[np.random.RandomState(seed).permutation(train.num_classes)]
    of = [np.flatnonzero(train.labels == k)[:n] for k, n in enumerate(counts)]
    path = options.runs / f"tail-{slug(options.data)}-{options.scale}-seed-{seed}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.save(file, train.indices[np.sort(np.concatenate(of))])
    return f"{options.data}:train={path}", counts


def measure(name: str, seed: int, scale: Tail, options: argparse.Namespace) -> dict[str, Any]:
    """Train one net; its accuracy on each class, the most frequent first."""
    tail, counts = long_tail(seed, scale, options)
    method, with_priors = ROWS[name]
    where = f"priors-{slug(options.data)}-{options.scale}"
    run = options.runs / where / f"{name.replace(' ', '-')}-seed-{seed}"
    weighed = ["--priors", *map(str, counts)] if with_priors else []
    words = [method, *merged(BASE, scale.train, f"--seed {seed}"), *weighed]
    trained(run, words, argparse.Namespace(**vars(options) | {"data": tail}))
    logits_fn, _, _ = models.load(run, weights="last")
    test = data.load(options.data, "test", options.data_dir)
    logits = np.asarray(jax.jit(logits_fn)(data.to_float(test.images)))
    order = np.argsort(-counts)
    found = {}
    for priors, adjusted in zip(PRIORS, (logits, logits - np.log(counts)), strict=True):
        right = adjusted.argmax(-1) == test.labels
        found[priors] = [round(float(right[test.labels == k].mean()), 4) for k in order]
    origin = files.read_json(run / "training.json")["provenance"]
    return {"seed": seed, "images": counts[order].tolist(), **found, "training": origin}


def summary(row: dict[str, Any]) -> dict[str, float]:
    """Mean accuracy of all classes and of the rare ones, with either priors."""
    return {
        f"{part}, {priors}": float(np.mean(row[priors][-n:]))
        for priors in PRIORS
        for part, n in (("all", 0), ("rare", RARE))
    }


def lines(table: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A Markdown table: means and deviations over the seeds."""
    columns = [f"{part}, {priors}" for priors in PRIORS for part in ("all", "rare")]
    made = [f"| | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for name, seeds in table.items():
        rows = [summary(seed) for seed in seeds]
        cells = [spread(row[column] for row in rows) for column in columns]
        made.append(f"| {name} | {' | '.join(cells)} |")
    return made


def draw(results: dict[str, Any], png: Path) -> None:
    """Accuracy over the number of training images of the class, a mean over seeds."""
    with report.figure(png, 1, 1, (4.8, 3.4)) as (ax,):
        for name, seeds in results["rows"].items():
            color = LOSS_COLORS.get(name, "0.4")
            for priors, style in zip(PRIORS, ("-", "--"), strict=True):
                mean = 100 * np.mean([seed[priors] for seed in seeds], axis=0)
                ax.plot(seeds[0]["images"], mean, style, color=color, label=f"{name}, {priors}")
        ax.set(xscale="log", xlabel="training images of the class", ylabel="accuracy, %")
        figures.plain_ticks(ax.xaxis)
        handles = ax.get_legend_handles_labels()
        ax.figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=8)


def main(options: argparse.Namespace) -> None:
    """Make what is missing; the table and the figure are written after each row."""
    made = over_seeds(measure, SCALES[options.scale], options)
    tabulate(options, ROWS, made, lines, draw)


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "class_priors", draw)
