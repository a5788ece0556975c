"""Robust overfitting on a budget: what stops a small network from unlearning its robustness.

Command:   python experiments/robust_overfitting.py --scale cpu --data-dir DIR   (DIR: prepared TFDS
           sets, or --data arrays:DIR; --only baseline for one row; --scale smoke: the path alone)
Hardware:  smoke: two minutes of two CPU cores; cpu: a network of two convolutions, the first 1,000
           images, 40 epochs, three seeds, an hour and a half of one core.
Claim:     adversarial training passes its best test robustness early and then loses most of it
           (Rice et al.); early stopping keeps it; weight decay, weight averaging, smoothed labels,
           a smooth activation, weight perturbation and augmentation each keep some of it.
Measured:  cpu: 15.9 % under AutoAttack (fast) at the best epoch, 5.9 % at the last. Crops and flips
           alone stop that (17.3 and 16.8 %); decay, averaging, smoothing, silu and AWP leave 5 to
           7 % at the last epoch. A softplus has not been run. Results go to
           results/robust_overfitting_{data}_{scale}.json and .png.
Source:    Rice et al., ICML 2020; Pang et al., ICLR 2021 (takeaways i, ii, iv and v). Weights
           averaged: Izmailov et al. 2018; perturbed: Wu et al., NeurIPS 2020.

The baseline has no remedy at all: no decay, no augmentation, SGD at one rate until the last tenth.
A row changes one thing in it. "best" is the epoch that did best on validation, which is early
stopping; both sets of weights face AutoAttack (fast) on the test images.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from runner import Scale, launch, merged, once, over_seeds, scaled, slug, spread, tabulate, trained

from robustjax import cli, files, report

BASE = (
    "--attack.steps 5 --attack.step-size 3/255 --validation-attack pgd-5 --augment none "
    "--batch-size 100 --lr 0.05 --optimizer.weight-decay 0"
)
ROWS = {  # what is changed -> flags
    "baseline": "",
    "weight decay 5e-4": "--optimizer.weight-decay 5e-4",
    "weight decay 1e-2": "--optimizer.weight-decay 1e-2",
    "weights averaged": "--ema 0.99",
    "labels smoothed by .3": "--label-smoothing 0.3",
    "silu": "--activation silu",
    "softplus": "--activation softplus",
    "weights perturbed": "--awp 0.005 --awp-start 0.1",
    "crops and flips": "--augment crop-flip",
    "attack stopped early": "--attack.stop misclassified:later=60/110,100/110",
    "eps warmed up": "--eps-warmup 0.8",
}
EVALUATION = "--attacks pgd-20 autoattack-fast --curve none"
COLUMNS = ("clean", "pgd-20", "autoattack-fast")


SCALES = {
    "smoke": Scale("--model cnn --width 4 --examples 100 --epochs 2", "--n 32", 1),
    "cpu": Scale("--model cnn --width 32 --examples 1000 --epochs 40", "--n 1000", 3),
}


def measure(name: str, seed: int, scale: Scale, options: argparse.Namespace) -> dict[str, Any]:
    """Train one row with one seed: its course on validation, and what both weights resist."""
    where = f"overfitting-{slug(options.data)}-{options.scale}"
    run = options.runs / where / f"{name.replace(' ', '-')}-seed-{seed}"
    words = ["pgd-at", *merged(BASE, scale.train, ROWS[name], f"--seed {seed}")]
    trained(run, words, options)
    rows = report.read_metrics(run / "metrics.jsonl")
    made: dict[str, Any] = {
        split: [round(r["robust_accuracy"], 4) for r in rows if r["split"] == split]
        for split in ("train", "validation")
    }
    for weights in ("best", "last"):
        found = once(run / f"{weights}.json", lambda: resisted(run, weights, scale, options))  # noqa: B023
        made[weights] = {"clean": found["clean"], **found["robust"]}
        made["evaluation"] = found["provenance"]
    return made | {"training": files.read_json(run / "training.json")["provenance"]}


def resisted(run: Path, weights: str, scale: Scale, options: argparse.Namespace) -> Any:
    """The report of a run's best or last weights."""
    where = ["--data-dir", options.data_dir] if options.data_dir else []
    words = [*scale.evaluate.split(), *EVALUATION.split(), "--weights", weights, *where]
    cli.main(["evaluate", str(run), *words])
    found = files.read_json(run / "report.json")
    found.pop("others", None)  # that of the other weights
    return found


def draw(results: dict[str, Any], png: Path) -> None:
    """A panel a remedy: robust accuracy over epochs, on training and validation images.

    The baseline lies behind each; every seed is a line.
    """
    table = results["rows"]
    columns = next((n for n in (4, 5, 3) if len(table) % n == 0), 4)
    lines = math.ceil(len(table) / columns)
    with report.figure(png, columns, lines, (2.5, 2.2), sharex=True, sharey=True) as axes:
        for ax in axes[len(table) :]:
            ax.remove()
        for ax, (name, seeds) in zip(axes, table.items(), strict=False):
            for split, color in (("train", "C0"), ("validation", "C3")):
                for of, look in ((table.get("baseline", ()), 0.2), (seeds, 0.9)):
                    for seed in of:
                        y = 100 * np.array(seed[split])
                        epochs = np.linspace(1, len(seed["validation"]), len(y))
                        ax.plot(epochs, y, color=color, alpha=look, linewidth=1)
            ax.set_title(name, fontsize=9)
        for ax in axes[: len(table) : columns]:
            ax.set_ylabel("robust accuracy, %")
        for ax in axes[max(0, len(table) - columns) : len(table)]:
            ax.set_xlabel("epoch")
            ax.tick_params(labelbottom=True)
        for label, color in (("training images", "C0"), ("validation images", "C3")):
            axes[0].plot([], [], color=color, label=label)
            axes[0].plot([], [], color=color, alpha=0.2, label=f"{label}, baseline")
        handles = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(*handles, loc="outside upper right", ncols=4)


def main(options: argparse.Namespace) -> None:
    """Make the rows that are wanted; the table and the figure are written after each."""
    made = over_seeds(measure, SCALES[options.scale], options)
    tabulate(options, ROWS, made, lines, draw)


def lines(table: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The Markdown table: clean, PGD-20 and AutoAttack of the best and of the last weights."""
    made = ["| | best: clean | AutoAttack | last: clean | AutoAttack | lost |"]
    made.append("| --- |" + " ---: |" * 5)
    for name, seeds in table.items():
        cells = [
            spread([seed[weights][column] for seed in seeds])
            for weights in ("best", "last")
            for column in ("clean", "autoattack-fast")
        ]
        lost = [seed["best"]["autoattack-fast"] - seed["last"]["autoattack-fast"] for seed in seeds]
        made.append(f"| {name} | {' | '.join(cells)} | {spread(lost)} |")
    return made


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "robust_overfitting", draw)
