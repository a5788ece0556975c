"""MMC and RCE under other attackers: images of another network, queries alone, least changes.

Command:   python experiments/mmc_attacks.py --scale cpu --data-dir DIR   (DIR: prepared TFDS sets;
           --only MMC for one row; --scale smoke: the path alone, on digits)
Hardware:  smoke: two minutes of one CPU core; cpu: a network of two convolutions, the first 10,000
           images of CIFAR-10, 8 epochs, three seeds, half an hour of one core; with --runs of
           mmc_at.py its networks are reused.
Claim:     in the papers MMC and RCE resist transferred images, SPSA and the C&W attack better than
           the softmax cross-entropy (SCE) does. Is that left in the worst case?
Measured:  cpu: of transferred images 4 % are left with SCE, 9 with MMC, 17 with RCE; of SPSA's 17,
           20 and 20; in the worst case 0, 1 and 2.
           results/mmc_attacks_{data}_{scale}.json; docs/reproduce/mmc.md.
Source:    Pang et al., ICLR 2020 and NeurIPS 2018, which attack so; their figures were not at hand.

Linf 8/255, the first n test images. A transferred image is PGD's on the margins of another network,
and `transfer` is the accuracy where the best of the other rows of the same seed has crafted it.
C&W is the attack in L2; its column is the median distance of the images that it fools.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from mmc_at import BASE, LOSSES
from runner import launch, merged, once, scaled, slug, spread, tabulate, trained

from robustjax import attacks, data, evaluation, files, models, report
from robustjax.threats import Linf

NATURAL = (
    "--augment none --validation-attack none --batch-size 100 --optimizer.name adam "
    "--optimizer.weight-decay 0 --lr 0.001 --schedule one-cycle"
)
ROWS = {  # row -> the method, its settings, the learning rate that mmc_at.py finds best
    "SCE": ("sce", NATURAL),
    "MMC": (LOSSES["MMC"], NATURAL),
    "RCE": ("rce", NATURAL),
    "AT SCE": (LOSSES["SCE"], f"{BASE} --lr 0.02"),
    "AT MMC": (LOSSES["MMC"], f"{BASE} --lr 0.00125"),
}
LINF = Linf(8 / 255)
COLUMNS = ("clean", "transfer", "spsa", "worst case", "C&W")


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of the experiment is run.

    Attributes:
      train, adversarial: flags of all trainings, and of the adversarial ones.
      seeds: of each row.
      n: test images.
      spsa: steps of SPSA, of 128 queries each.
      cw: steps of each of the five searches of C&W.
    """

    train: str
    adversarial: str
    seeds: int
    n: int
    spsa: int
    cw: int


SCALES = {
    "smoke": Scale("--model cnn --width 4 --epochs 2", "", 1, n=16, spsa=2, cw=10),
    "cpu": Scale(
        "--model cnn --width 32 --examples 10000 --epochs 8",
        "--attack.steps 5 --attack.step-size 3/255",
        seeds=3,
        n=100,
        spsa=20,
        cw=60,
    ),
}


def network(name: str, seed: int, scale: Scale, options: argparse.Namespace) -> Path:
    """The run of a row and a seed; an adversarial one lies where mmc_at.py looks for it."""
    words, flags = ROWS[name]
    method, *own = words.split()
    part, extra = ("mmc-at", scale.adversarial) if name.startswith("AT") else ("mmc-attacks", "")
    rate = f"lr-{flags.split()[-1]}-" if extra else ""
    run = options.runs / f"{part}-{slug(options.data)}-{options.scale}"
    asked = merged(flags, scale.train, extra, f"--seed {seed}")
    return trained(run / f"{method}-{rate}seed-{seed}", [method, *own, *asked], options)


def white_box(run: Path, scale: Scale, options: argparse.Namespace) -> dict[str, Any]:
    """The accuracy under attacks on the network itself, and the distance that C&W needs."""
    test = data.load(options.data, "test", options.data_dir).head(scale.n)
    logits_fn, _, _ = models.load(run)
    tried = {
        "pgd": attacks.PGD(LINF),
        "margins": attacks.MultiTargetedPGD(LINF),
        "fast": attacks.FastAutoAttack(LINF),
        "spsa": attacks.SPSA(LINF, steps=scale.spsa),
        "cw": attacks.CarliniWagnerL2(rounds=5, steps=scale.cw),
    }
    began, key = time.time(), jax.random.key(0)
    subject = logits_fn, test.images, test.labels
    found = evaluation.evaluate(*subject, tried, key, threat=LINF, progress=True)
    distance = found.examples["cw"]["distance"]
    return {
        "clean": found.clean,
        **{name: found.robust[name] for name in tried if name != "cw"},
        "worst case": found.worst_case,
        "C&W": float(np.median(distance[np.isfinite(distance) & (distance > 0)])),
        "provenance": report.provenance(report.command_line(), 0, began),
    }


def transferred(runs: dict[str, Path], scale: Scale, options: argparse.Namespace) -> Any:
    """source -> target -> the target's accuracy on the source's images."""
    test = data.load(options.data, "test", options.data_dir).head(scale.n)
    nets = {name: models.load(run)[0] for name, run in runs.items()}
    attack, key = attacks.MultiTargetedPGD(LINF), jax.random.key(0)
    found = evaluation.transfer(attack, nets, nets, test.images, test.labels, key)
    return {
        source: {target: rate.value for target, rate in rates.items()}
        for source, rates in found.accuracy.items()
    }


def main(options: argparse.Namespace) -> None:
    """Make what is missing; the table is written after each row."""
    scale, matrices = SCALES[options.scale], []
    for seed in range(scale.seeds):
        runs = {name: network(name, seed, scale, options) for name in ROWS}
        kept = options.runs / f"mmc-attacks-{slug(options.data)}-{options.scale}"
        measure = partial(transferred, runs, scale, options)
        matrices.append(once(kept / f"transfer-{seed}.json", measure))

    def make(name: str) -> list[dict[str, Any]]:
        seeds = []
        for seed, matrix in enumerate(matrices):
            run = network(name, seed, scale, options)
            sources = {source: row[name] for source, row in matrix.items() if source != name}
            seeds.append(
                {
                    "seed": seed,
                    **once(run / "attackers.json", partial(white_box, run, scale, options)),
                    "transfer": min(sources.values()),
                    "from": sources,
                    "training": files.read_json(run / "training.json")["provenance"],
                }
            )
        return seeds

    tabulate(options, ROWS, make, lines)


def lines(table: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A Markdown table: means and deviations over the seeds."""
    made = [f"| | {' | '.join(COLUMNS)} |", "| --- |" + " ---: |" * len(COLUMNS)]
    for name, seeds in table.items():
        cells = [spread(seed[column] for seed in seeds) for column in COLUMNS[:-1]]
        cells.append(spread((seed["C&W"] for seed in seeds), unit=1, digits=2))
        made.append(f"| {name} | {' | '.join(cells)} |")
    return made


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "mmc_attacks")
