"""The adversarial-training methods that people use most, on one recipe, over three seeds.

Command:   python experiments/at_seeds.py --scale cpu --data-dir DIR   (DIR: prepared TFDS sets, or
           --data arrays:DIR; --only TRADES for one row; --scale smoke: the path alone, on digits)
Hardware:  smoke: seven minutes of one CPU core; cpu: a network of two convolutions, the first
           10,000 images, 4 epochs, three seeds, over an hour of one core.
Claim:     most of these papers say that their method is more robust than PGD-AT; is it on one
           recipe and one small budget?
Measured:  cpu: PGD-AT 22.4 % under AutoAttack (fast), and no method clearly above it; HAT (17.5)
           and level sets (18.1) are clearly below. Extra images help TRADES (+0.9 points), and HAT
           is the most accurate on clean images. SCORE has not been run, and Free's second seed
           stops at step 255, where its loss is not finite. docs/results.md. Results go to
           results/at_seeds_{data}_{scale}.json.
Source:    the paper of each method: `robustjax methods`.

Ten rows are what later papers compare with most often: PGD-AT, TRADES, MART, AWP and FAT; Free,
Fast AT and N-FGSM for their price; ALP and SCORE for their losses. Four need what at_methods.py
does not have. RST (TRADES) and UAT++ take half of each batch from 20,000 other training images,
labelled by a natural network that saw the first 10,000; that network is HAT's helper too. Neural
level sets have no cross-entropy, and take Adam at a rate of their own.

All else is the same for all, and tuned for none: the network, whose activation is silu since PGD-AT
with relu predicted one class even at twice this width, the rate, its warm-up and its drops,
batches, weight decay, and five steps of PGD in training. A single step and Free's eight replays
stay as they are. Differences are of pairs of runs with the same seed.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from effects import effect
from runner import (
    Scale,
    evaluated,
    launch,
    merged,
    over_seeds,
    scaled,
    slug,
    spread,
    tabulate,
    trained,
)

from robustjax import cli, data, files
from robustjax.writing import replacing

BASE = (
    "--activation silu --augment none --batch-size 100 --lr 0.05 --lr-warmup 0.05 "
    "--schedule piecewise --optimizer.name sgd --optimizer.weight-decay 5e-4 "
    "--validation-attack pgd-5"
)
STEPS = "--attack.steps 5 --attack.step-size 3/255"
ROWS = {  # the method, and its flags beside those of all
    "PGD-AT": f"pgd-at {STEPS}",
    "TRADES": f"trades {STEPS}",
    "RST": f"rst {STEPS}",
    "UAT++": f"uat++ {STEPS}",
    "HAT": f"hat {STEPS}",
    "MART": f"mart {STEPS}",
    "AWP": f"pgd-at {STEPS} --awp 0.01",
    "FAT": f"fat {STEPS}",
    "N-FGSM": "n-fgsm",
    "Fast AT": "fast-at",
    "SCORE": f"score {STEPS}",
    "ALP": f"alp {STEPS}",
    "level sets": "level-sets --attack.steps 5 --attack.rel-step 15/8 --optimizer.name adam "
    "--optimizer.weight-decay 0 --lr 0.001",
    "Free": "free",  # last: at this rate it can diverge
}
EXTRA = ("RST", "UAT++")
"""The rows with unlabelled images."""

EVALUATION = "--attacks pgd-20 autoattack-fast --curve none"
COLUMNS = ("clean", "pgd-20", "autoattack-fast")


@dataclasses.dataclass(frozen=True)
class Shares(Scale):
    """The scale, how many images are labelled, and how many more are not."""

    labelled: int
    unlabelled: int


SCALES = {
    "smoke": Shares("--model cnn --width 4 --epochs 2", "--n 32", 1, 500, 500),
    "cpu": Shares("--model cnn --width 8 --epochs 4", "--n 1000", 3, 10_000, 20_000),
}


def folder(options: argparse.Namespace) -> Path:
    """Where the runs of this scale are."""
    return options.runs / f"at-seeds-{slug(options.data)}-{options.scale}"


def train(
    name: str, method: str, flags: str, seed: int, scale: Shares, options: argparse.Namespace
) -> Path:
    """The run of a method on the labelled images."""
    words = merged(BASE, scale.train, f"--examples {scale.labelled} --seed {seed}", flags)
    run = folder(options) / f"{name.lower().replace(' ', '-')}-seed-{seed}"
    return trained(run, [method, *words], options)


def natural(seed: int, scale: Shares, options: argparse.Namespace) -> Path:
    """The network that labels images for RST and UAT++, and helps HAT."""
    return train("natural", "natural", "--validation-attack none", seed, scale, options)


def pool(seed: int, scale: Shares, options: argparse.Namespace) -> Path:
    """A folder of the images after the labelled ones, and the natural network's labels."""
    images = folder(options) / "unlabelled"
    if not (images / "train_images.npy").exists():
        images.mkdir(parents=True, exist_ok=True)
        rest = slice(scale.labelled, scale.labelled + scale.unlabelled)
        with replacing(images / "train_images.npy") as file:
            np.save(file, data.load(options.data, "train", options.data_dir).images[rest])
    made = folder(options) / f"pool-seed-{seed}"
    if not (made / "train_images.npy").exists():
        run = str(natural(seed, scale, options))
        cli.main(["pseudo-label", run, "--data", f"arrays:{images}", "--out", str(made)])
    return made


def measure(name: str, seed: int, scale: Shares, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate one method with one seed, after the network that it needs."""
    method, *flags = ROWS[name].split()
    found: dict[str, Any] = {"seed": seed}
    if name in EXTRA:
        flags += ["--extra", f"arrays:{pool(seed, scale, options)}"]
    if name in (*EXTRA, "HAT"):
        first = natural(seed, scale, options)
        found["natural network"] = files.read_json(first / "training.json")["best"]
        flags += ["--helper", str(first)] if name == "HAT" else []
    run = train(name, method, " ".join(flags), seed, scale, options)
    tested = evaluated(run, [*scale.evaluate.split(), *EVALUATION.split()], options)
    training = files.read_json(run / "training.json")
    return found | {
        "validation": training["best"],
        "clean": tested["clean"],
        **tested["robust"],
        "training": training["provenance"],
        "evaluation": tested["provenance"],
    }


def lines(table: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The Markdown table; a difference from PGD-AT is bold if its interval leaves zero out."""
    found = ["| method | clean | PGD-20 | AutoAttack (fast) | less PGD-AT's |"]
    found.append("| --- |" + " ---: |" * 4)
    column = COLUMNS[-1]
    for name, seeds in table.items():
        cells = [spread(seed[column] for seed in seeds) for column in COLUMNS]
        text = ""
        if name != "PGD-AT" and "PGD-AT" in table and len(seeds) > 1:
            text, verdict = effect(*([s[column] for s in table[n]] for n in (name, "PGD-AT")))
            text = text if verdict == "open" else f"**{text}**"
        found.append(f"| {name} | {' | '.join(cells)} | {text} |")
    return found


def main(options: argparse.Namespace) -> None:
    """Make the rows that are wanted; the table is written after each."""
    made = over_seeds(measure, SCALES[options.scale], options)
    tabulate(options, ROWS, made, lines)


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "at_seeds")
