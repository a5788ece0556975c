"""The five takeaways of "Bag of tricks for adversarial training", as ablations of its baseline.

Command:   python experiments/bag_of_tricks.py --scale cpu --data-dir DIR   (DIR: prepared TFDS
           sets; --only 'weight decay' for one takeaway; --scale smoke: the path alone, on digits)
Hardware:  smoke: four minutes of two CPU cores; cpu: a narrow net, the first 10,000 images, 5
           epochs, 3 seeds, about two hours in any pieces; gpu: PreActResNet-18, 15 epochs, 3 seeds;
           full: the paper's networks and 110 epochs, 5 seeds.
Claim:     1. weight decay matters most, 5e-4 is better than less; 2. a little label smoothing, and
           a learning rate that grows with the batch, help; 3. BatchNorm in eval mode while crafting
           helps; 4. an attack that stops early costs worst-case robustness; 5. a smooth activation
           helps where capacity is short.
Measured:  nothing yet. Results go to results/bag_of_tricks_{data}_{scale}.json and .png.
Source:    Pang et al., ICLR 2021, whose tables are 110 epochs of ResNet-18 and WRN-34-10. Weight
           decay and early stopping need a net that over-fits: at cpu scale none does.

A setting names what it changes of the baseline, which is trained once for all takeaways.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np
from record import chosen, evaluated, place, scaled, slug, trained

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
COLUMNS = ("clean", "pgd-10", "autoattack")


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
    "cpu": Scale("--model cnn --width 16 --epochs 5 --examples 10000", "--n 200", 3, (8, 32)),
    "gpu": Scale(
        "--model preact-resnet-18 --width 16 --dtype bfloat16 --examples 10000 --epochs 30",
        "--n 1000",
        3,
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


def measure(flags: str, seed: int, scale: Scale, options: argparse.Namespace) -> dict[str, float]:
    """Train and evaluate one setting: its columns."""
    name = slug(flags.replace("--", "").replace("/", "_").replace(" ", "-") or BASELINE)
    run = options.runs / f"tricks-{slug(options.data)}-{options.scale}" / f"{name}-seed-{seed}"
    words = ["pgd-at", *scale.train.split(), *flags.split(), "--seed", str(seed)]
    trained(run, words, options)
    found = evaluated(run, [*scale.evaluate.split(), *EVALUATION.split()], options)
    return {"clean": found["clean"], **found["robust"]}


def draw(table: dict[str, dict[str, list[dict[str, float]]]], png) -> None:
    """A panel a takeaway: the mean of each column over seeds, and its standard deviation."""
    with report.figure(png, 3, 2, (4.2, 3.2)) as axes:
        for ax, (takeaway, choices) in zip(axes, table.items(), strict=True):
            for i, column in enumerate(COLUMNS):
                values = [[100 * row[column] for row in seeds] for seeds in choices.values()]
                spread = [np.std(v, ddof=1) if len(v) > 1 else 0 for v in values]
                x = np.arange(len(values)) + 0.1 * (i - 1)
                ax.errorbar(x, [np.mean(v) for v in values], spread, fmt="o", label=column)
            ax.set_xticks(range(len(choices)), list(choices), rotation=30, ha="right", fontsize=6)
            ax.set(title=takeaway, ylabel="accuracy, %")
        axes[0].legend(fontsize=7)


def main(options: argparse.Namespace) -> None:
    """Make what is missing, and write the table and the figure."""
    started, scale = time.time(), SCALES[options.scale]
    table: dict[str, dict[str, list[dict[str, float]]]] = {}
    for takeaway, choices in settings(scale).items():
        if options.only in (None, takeaway):
            table[takeaway] = {
                name: [measure(flags, seed, scale, options) for seed in range(scale.seeds)]
                for name, flags in choices.items()
            }
    if options.only:
        return
    path = place(options) / f"bag_of_tricks_{slug(options.data)}_{options.scale}"
    origin = report.provenance(report.command_line(), 0, started)
    files.write_json(path.with_suffix(".json"), {"provenance": origin, "takeaways": table})
    draw(table, path.with_suffix(".png"))
    print("| | | " + " | ".join(COLUMNS) + " |", "| --- | --- |" + " ---: |" * 3, sep="\n")
    for takeaway, choices in table.items():
        for name, seeds in choices.items():
            cells = [f"{100 * np.mean([row[c] for row in seeds]):.1f}" for c in COLUMNS]
            print(f"| {takeaway} | {name} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main(chosen(scaled(__doc__, SCALES)))
