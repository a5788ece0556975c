"""Every adversarial-training method on one recipe and one budget: its robustness and its cost.

Command:   python experiments/at_methods.py --scale cpu --data-dir DIR   (DIR: prepared TFDS sets;
           --only NAME for one row; --scale smoke: the path alone, on digits)
Hardware:  smoke: a minute a row on two CPU cores; cpu: a narrow net, the first 10,000 images, 5
           epochs, eight minutes a row; gpu: PreActResNet-18 in bfloat16, all images, 15 epochs,
           minutes a row of an H100; full: the unified baseline of Bag of Tricks, WRN-34-10, 110
           epochs.
Claim:     none in advance: the papers use a recipe each, this table uses one for all.
Measured:  gpu: PGD-AT, TRADES and Fast AT: 43.1, 42.8 and 40.8 % under AutoAttack. cpu: all 33 rows
           (seconds a step are of a busy machine): Free 21.5, PGD-AT 18.5, TRADES 13.0 %. Nothing
           at full scale. Results go to results/at_methods_{data}_{scale}.json.
Source:    Pang et al., "Bag of tricks for adversarial training", ICLR 2021, Table 1 names the
           methods; its unified baseline is the recipe: lr .1, weight decay 5e-4, drops at 100/110
           and 105/110 of training, BatchNorm in eval mode while crafting.

The table leaves out methods with a recipe of their own (extra data, other optimisers), HAT, which
needs a second run (at_seeds.py has these), and AdaNet in nets without batch normalisation. LBGAT's
teacher has the size of the net, or the warm-up of the first epoch that its authors use.
Curriculum's patience, ten of its authors' many epochs, is one epoch in short runs, which otherwise
stay natural. Existing rows are kept, and an interrupted row resumes. Every net is evaluated in
float32, at the weights that PGD-10 on validation images chose, as the baseline says. That accuracy,
the best of all epochs, orders the rows: CIFAR-10 has 1,000 validation images, and the cpu scale
attacks 200 test images.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

from runner import added, evaluated, launch, scaled, slug, trained, wanted

from robustjax import files, report, training

NAMES = {"pgd-at": "PGD-AT", "trades": "TRADES"}
ROWS = {
    NAMES.get(name, name): name
    for name, method in training.METHODS.items()
    if not method.on_clean and training.card(name).recipe == training.Recipe() and name != "hat"
}
SCALES = {  # flags of train, of evaluate
    "smoke": ("--model cnn --width 4 --epochs 4", "--n 32"),
    "cpu": ("--model resnet-8 --width 8 --epochs 5 --examples 10000", "--n 200"),
    "gpu": ("--model preact-resnet-18 --dtype bfloat16 --epochs 15", "--n 1000"),
    "full": ("--model wrn-34-10 --dtype bfloat16 --epochs 110", "--n 10000"),
}
OWN = {  # flags that a row has beside its scale's
    "lbgat": {  # its teacher, a ResNet-18, outgrows a small net and diverges at the first steps
        "smoke": "--teacher cnn",
        "cpu": "--teacher resnet-8",
        "gpu": "--lr-warmup 1/15",
        "full": "--lr-warmup 1/110",
    },
    "curriculum": dict.fromkeys(("smoke", "cpu", "gpu"), "--patience 1"),
}
EVALUATION = "--attacks pgd-50 autoattack --curve none --dtype float32"


def rows_of(scale: str) -> list[str]:
    """The rows that a scale has."""
    return [name for name in ROWS if "adanet" not in name or "cnn" not in SCALES[scale][0]]


def row(name: str, options: argparse.Namespace) -> dict:
    """Train and evaluate one method; what the table says of it, and the whole report."""
    train, evaluate = SCALES[options.scale]
    own = OWN.get(name, {}).get(options.scale, "")
    run = options.runs / f"at-{slug(options.data)}-{options.scale}" / name.lower()
    trained(run, [*ROWS[name].split(), *train.split(), *own.split()], options)
    found = evaluated(run, [*evaluate.split(), *EVALUATION.split()], options)
    origin, settings = (files.read_json(run / f"{part}.json") for part in ("training", "config"))
    return {
        "clean": found["clean"],
        **found["robust"],
        "worst": found["worst_case"],
        "seconds_per_step": seconds_per_step(run),
        "training": origin,
        "config": settings,
        "report": found,
    }


def seconds_per_step(run: Path) -> float:
    """The median over lines of metrics.jsonl of an epoch without its validation."""
    lines = [r for r in report.read_metrics(run / "metrics.jsonl") if r["split"] == "train"]
    pairs = itertools.pairwise(lines)
    rates = [(b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairs]
    return sorted(rates)[len(rates) // 2]


def main(options: argparse.Namespace) -> None:
    """Make the rows that are missing, and write the table of all that are there."""
    started = time.time()
    for name in wanted(options, rows_of(options.scale)):
        rows = added(options.results, "rows", name, row(name, options), started)
    heads = ("validation", "clean", "PGD-50", "AutoAttack", "ms a step")
    print("| | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads), sep="\n")
    for name, found in ranked(rows).items():
        shares = (found["training"]["best"], *(found[c] for c in ("clean", "pgd-50", "autoattack")))
        cells = [f"{100 * share:.1f}" for share in shares]
        print(f"| {name} |", " | ".join(cells), f"| {1000 * found['seconds_per_step']:.1f} |")


def ranked(rows: dict[str, dict]) -> dict[str, dict]:
    """The rows by their validation accuracy: at cpu scale it is of more images than the test's."""
    return dict(sorted(rows.items(), key=lambda row: -row[1]["training"]["best"]))


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "at_methods")
