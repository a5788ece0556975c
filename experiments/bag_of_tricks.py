"""The five takeaways of "Bag of tricks for adversarial training", as ablations of its baseline.

Command:   python experiments/bag_of_tricks.py --scale cpu --data-dir DIR   (DIR: prepared TFDS
           sets; --only 'weight decay' for one takeaway; --scale smoke: the path alone, on digits)
Hardware:  smoke: four minutes of two CPU cores; cpu: a narrow net, the first 10,000 images, 5
           epochs, 3 seeds, three hours in any pieces; gpu: PreActResNet-18 at a quarter of its
           width, the first 10,000 images, 30 epochs, one seed, an hour of an H100; full: the
           paper's networks and 110 epochs, 5 seeds.
Claim:     1. weight decay matters most, 5e-4 is better than less; 2. a little label smoothing, and
           a learning rate that grows with the batch, help; 3. BatchNorm in eval mode while crafting
           helps; 4. an attack that stops early costs worst-case robustness; 5. a smooth activation
           helps where capacity is short.
Measured:  gpu, robust accuracy under AutoAttack: 30.3, 32.0, 32.1, 33.0 % at decays of 1e-4, 2e-4,
           5e-4, 1e-3; 32.9 with smoothing of .1; 30.9 with BatchNorm in train mode; 28.9 (and 69.3
           against 58.6 clean) with an attack that stops early. A standard error is 1.5: only the
           last is beyond doubt. cpu: 20.5, 19.8, 20.5, 19.5 % at the same decays; 20.5, 19.8, 19.2,
           18.5 with smoothing of 0, .1, .2, .3; 20.5, 20.5, 19.5 in batches of 64, 128, 256 with a
           learning rate that grows, 15.7 at 256 with .1; 18.0 with BatchNorm in train mode; 13.3
           (and 41.7 against 32.5 clean) with an attack that stops early; with relu, softplus, silu,
           gelu 20.2, 19.7, 19.8, 19.8 at width 4 and 20.5, 19.0, 20.8, 21.3 at width 8; standard
           deviations over seeds are .3 to 3.5. At gpu scale batch size and activations have no
           result; nor has full.
           Results go to results/bag_of_tricks_{data}_{scale}.json and .png.
Source:    Pang et al., ICLR 2021, whose tables are 110 epochs of ResNet-18 and WRN-34-10. Weight
           decay and early stopping matter for nets that over-fit; at cpu scale none does.

A setting names what it changes in the baseline, which is trained once for all takeaways. Seeds, and
settings that differ only in numbers, share one compiled program (`training.step.program`), called
seed by seed: vmapped over three of them it is 3.4 times as slow (`benchmarks/seeds.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from figures import redraw
from runner import added, evaluated, launch, scaled, slug, trained, wanted

from robustjax import files, report

BASELINE = "baseline"
TAKEAWAYS = {
    "weight decay": {
        "1e-4": "--optimizer.weight-decay 1e-4",
        "2e-4": "--optimizer.weight-decay 2e-4",
        "5e-4": "",
        "1e-3": "--optimizer.weight-decay 1e-3",
    },
    "label smoothing": {
        "0": "",
        "0.1": "--label-smoothing 0.1",
        "0.2": "--label-smoothing 0.2",
        "0.3": "--label-smoothing 0.3",
    },
    "batch size": {
        "64, lr .05": "--batch-size 64 --lr 0.05",
        "128, lr .1": "",
        "256, lr .2": "--batch-size 256 --lr 0.2",
        "256, lr .1": "--batch-size 256",
    },
    "BatchNorm while crafting": {"eval": "", "train": "--bn commit"},
    "early-stopped attack": {
        "never": "",
        "0, 1, 2 steps later": "--attack.stop misclassified:later=60/110,100/110",
    },
    "activation": {
        f"{name}, width x {size}": f"--activation {name} --width {size}"
        for size in ("narrow", "wide")
        for name in ("relu", "softplus", "silu", "gelu")
    },
}
COLUMNS = {"clean": "clean", "pgd-10": "PGD-10", "autoattack": "AutoAttack"}
"""In the reports, and in the figure and the table."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of it is run.

    Attributes:
      train: flags of every training.
      evaluate: flags of every evaluation.
      seeds: of each setting.
      widths: the narrow one and the wide one of the activations.
    """

    train: str
    evaluate: str
    seeds: int
    widths: tuple[int, int]


SCALES = {
    "smoke": Scale("--model cnn --width 4 --epochs 2", "--n 32", 1, (2, 8)),
    "cpu": Scale("--model resnet-8 --width 8 --epochs 5 --examples 10000", "--n 200", 3, (4, 8)),
    "gpu": Scale(
        "--model preact-resnet-18 --width 16 --dtype bfloat16 --examples 10000 --epochs 30",
        "--n 1000",
        1,
        (8, 32),
    ),
    "full": Scale("--model preact-resnet-18 --epochs 110", "--n 10000", 5, (16, 128)),
}
EVALUATION = "--attacks pgd-10 autoattack --curve none --dtype float32"


def settings(scale: Scale) -> dict[str, dict[str, str]]:
    """Takeaway -> setting -> flags of train, the scale's widths put in."""
    widths = dict(zip(("narrow", "wide"), map(str, scale.widths), strict=True))

    def put(text):
        return " ".join(widths.get(word, word) for word in text.split())

    return {
        takeaway: {put(name): put(flags) for name, flags in choices.items()}
        for takeaway, choices in TAKEAWAYS.items()
    }


def measure(flags: str, seed: int, scale: Scale, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate one setting: its columns, and where they are from."""
    name = slug(flags.replace("--", "").replace("/", "_").replace(" ", "-") or BASELINE)
    run = options.runs / f"tricks-{slug(options.data)}-{options.scale}" / f"{name}-seed-{seed}"
    words = ["pgd-at", *scale.train.split(), *flags.split(), "--seed", str(seed)]
    trained(run, words, options)
    found = evaluated(run, [*scale.evaluate.split(), *EVALUATION.split()], options)
    training = files.read_json(run / "training.json")
    return {"clean": found["clean"], **found["robust"], "training": training, "report": found}


def draw(results: dict[str, Any], png: Path) -> None:
    """A panel a takeaway: each column's mean and standard deviation over seeds.

    Of one seed: the standard error that its number of images leaves.
    """
    table = {name: results["takeaways"][name] for name in TAKEAWAYS if name in results["takeaways"]}
    lines = math.ceil(len(table) / 3)
    columns = math.ceil(len(table) / lines)
    with report.figure(png, columns, lines, (4.2, 3.2), sharey=True) as axes:
        for ax in axes[len(table) :]:
            ax.remove()
        for ax, (takeaway, choices) in zip(axes, table.items(), strict=False):
            for (column, label), aside in zip(COLUMNS.items(), (-0.12, 0, 0.12), strict=True):
                cells = [mean_and_spread(column, seeds) for seeds in choices.values()]
                x = np.arange(len(cells)) + aside
                how = {"fmt": "o", "markersize": 4, "capsize": 3, "linewidth": 1}
                ax.errorbar(x, *zip(*cells, strict=True), label=label, **how)
            ax.set_xticks(range(len(choices)), [two_lines(name) for name in choices], fontsize=7.5)
            ax.set(title=takeaway, xlim=(-0.5, len(choices) - 0.5))
            ax.grid(False, axis="x")
        for ax in axes[: len(table) : columns]:
            ax.set_ylabel("accuracy, %")
        handles = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(*handles, loc="outside upper right", ncols=len(COLUMNS))


def two_lines(setting: str) -> str:
    """A setting's name for a tick: numbers as people write them, long names on two lines."""
    with contextlib.suppress(ValueError):
        return np.format_float_positional(float(setting), trim="-")
    for old, new in ((", width x ", "\nwidth "), (", lr ", ",\nrate 0"), (" steps", "\nsteps")):
        setting = setting.replace(old, new)
    return setting


def mean_and_spread(column: str, seeds: list[dict[str, Any]]) -> tuple[float, float]:
    """Of a column in percent, as `draw` shows it."""
    values = [row[column] for row in seeds]
    mean, n = np.mean(values), seeds[0]["report"]["n"]
    spread = np.std(values, ddof=1) if len(values) > 1 else np.sqrt(mean * (1 - mean) / n)
    return 100 * mean, 100 * spread


def main(options: argparse.Namespace) -> None:
    """Make what is missing, and write the table and the figure after every takeaway."""
    started, scale = time.time(), SCALES[options.scale]
    asked = settings(scale)
    for takeaway in wanted(options, asked):
        made = {
            name: [measure(flags, seed, scale, options) for seed in range(scale.seeds)]
            for name, flags in asked[takeaway].items()
        }
        table = added(options.results, "takeaways", takeaway, made, started)
        redraw(options.results, draw)
    print("| | | " + " | ".join(COLUMNS.values()) + " |", "| --- | --- |" + " ---: |" * 3, sep="\n")
    for takeaway, choices in table.items():
        for name, seeds in choices.items():
            cells = [f"{100 * np.mean([row[c] for row in seeds]):.1f}" for c in COLUMNS]
            print(f"| {takeaway} | {name} |", " | ".join(cells), "|")


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "bag_of_tricks", draw)
