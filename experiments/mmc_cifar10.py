"""The CIFAR-10 table of "Rethinking softmax cross-entropy loss", and what it leaves out.

Command:   python experiments/mmc_cifar10.py --scale cpu --data-dir DIR   (DIR: prepared TFDS sets;
           with --data mnist the same rows on MNIST; --scale smoke: the path alone, on digits)
Hardware:  smoke: five minutes of two CPU cores; cpu: over two hours, in any pieces: finished
           parts are kept, and the table exists after the first seed. gpu: half an hour of an
           H100 (30 epochs, AT rows 10, batches of 100 and a warm-up of one epoch); full: 200
           epochs of each row.
Claim:     under the paper's own attacks SCE < Center, MMLDA < L-GM < MMC (rand) < MMC, and AT helps
           all; under attacks on the margins the natural rows collapse, MMC included.
Measured:  gpu, natural rows: PGD-10 at 8/256, targeted: SCE and Center 0, MMLDA 0.5, L-GM 3.5, MMC
           (rand) 14, MMC 17 %, and not that order under the table's other attacks; every row at 0
           in the worst case. cpu: PGD-50 at 8/256 leaves MMC and MMC (rand) 9 %, the other natural
           rows less than 1; in the worst case all are at 0 there, AT-un SCE at 16.5 and AT-un MMC
           at 18.5 %. Nothing at full scale yet. Results go to results/mmc_{data}_{scale}.json and
           .png.
Source:    Pang et al., ICLR 2020, Table 1, as the talk shows it (`PUBLISHED`). It has neither the
           worst case over strong attacks nor eps below 8/256.

As in the authors' code eps is k/256, the attacks step by 2/256, MMC lacks the 1/2 and MMLDA is
trained at temperature 1/2; the last weights are evaluated, where MMC is attacked by its own loss
and every other row by the cross-entropy of its logits. Among the strong columns, `adaptive` is the
accuracy after both `pgd-mt` and itself, and `worst` the accuracy after AutoAttack as well. The net
is the small ResNet with a linear layer of 64 features (ResNet-8 at cpu scale, ResNet-32 on a GPU).
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
from figures import redraw
from runner import launch, once, scaled, slug, trained, wanted, write_result
from tables import draw, markdown

from robustjax import attacks, data, evaluation, files, models, report, training
from robustjax.losses import cross_entropy, mmc
from robustjax.threats import Linf

ROWS = {
    "SCE": "sce",
    "Center": "center",
    "MMLDA": "mmlda --temperature 1/2",
    "L-GM": "lgm",
    "MMC-10 (rand)": "mmc --weight 2 --centers random",
    "MMC-10": "mmc --weight 2",
    "AT-tar SCE": "sce --adversarial targeted",
    "AT-tar MMC-10": "mmc --weight 2 --adversarial targeted",
    "AT-un SCE": "sce --adversarial untargeted",
    "AT-un MMC-10": "mmc --weight 2 --adversarial untargeted",
}
PUBLISHED = {  # clean; then at 8/256 and at 16/256: PGD-10 tar, un, PGD-50 tar, un. 1 means <= 1
    "SCE": (92.9, 1, 3.7, 1, 3.6, 1, 2.9, 1, 2.6),
    "Center": (92.8, 1, 4.4, 1, 4.3, 1, 3.1, 1, 2.9),
    "MMLDA": (92.4, 1, 16.5, 1, 9.7, 1, 6.7, 1, 5.5),
    "L-GM": (92.5, 37.6, 19.8, 8.9, 4.9, 26.0, 11.0, 2.5, 2.8),
    "MMC-10 (rand)": (92.3, 43.5, 29.2, 20.9, 18.4, 31.3, 17.9, 8.6, 11.6),
    "MMC-10": (92.7, 48.7, 36.0, 26.6, 24.8, 36.1, 25.2, 13.4, 17.5),
    "AT-tar SCE": (83.7, 70.6, 49.7, 69.8, 47.8, 48.4, 26.7, 31.2, 16.0),
    "AT-tar MMC-10": (83.0, 69.2, 54.8, 67.0, 53.5, 58.6, 47.3, 44.7, 45.1),
    "AT-un SCE": (80.9, 69.8, 55.4, 69.4, 53.9, 53.3, 34.1, 38.5, 21.5),
    "AT-un MMC-10": (81.8, 70.8, 56.3, 70.1, 55.0, 54.7, 37.4, 39.9, 27.7),
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """The part of the table that is run.

    Attributes:
      train: flags of every training.
      epochs: of a natural row and of an adversarial one; 0 leaves those rows out.
      seeds: of a natural row; an adversarial one has one.
      n: test images under the table's attacks.
      strong: the first of them, under the strong attacks, of seed 0.
      radii: eps in 1/256; the table's are 8 and 16.
      restarts: of the adaptive attacks.
    """

    train: str
    epochs: tuple[int, int]
    seeds: int
    n: int
    strong: int
    radii: tuple[int, ...] = (1, 2, 4, 8, 16)
    restarts: int = 1


SCALES = {
    "smoke": Scale("--model cnn --width 4", (2, 1), 1, 32, 16, (8, 16)),
    "cpu": Scale("--model resnet-8 --augment shift-flip", (4, 2), 3, 300, 200),
    "gpu": Scale(
        "--model resnet-32 --augment shift-flip --batch-size 100 --lr-warmup 0.025",
        (30, 10),
        1,
        200,
        100,
        (8, 16),
    ),
    "full": Scale(
        "--model resnet-32 --augment shift-flip", (200, 200), 1, 10_000, 1000, restarts=5
    ),
}


BATCH_SIZE = training.card("mmc").recipe.batch_size
"""Of every scale, or half of it: what the devices have to divide."""


def rows_of(scale: Scale) -> list[str]:
    """The rows that a scale has."""
    return [name for name in ROWS if scale.epochs["AT" in name]]


def train(name: str, seed: int, scale: Scale, options: argparse.Namespace) -> Path:
    """The run directory of one net, trained."""
    row = name.lower().replace(" ", "-").strip("()").replace("(", "")
    run = options.runs / f"mmc-{slug(options.data)}-{options.scale}" / f"{row}-seed-{seed}"
    words = [*ROWS[name].split(), *scale.train.split(), "--seed", str(seed)]
    words += ["--epochs", str(scale.epochs["AT" in name]), "--validation-attack", "none"]
    return trained(run, words, options)


def measure(name: str, seed: int, run: Path, scale: Scale, test: data.Dataset) -> dict:
    """The row's columns: accuracies by the attack's name and eps."""
    logits_fn, _, _ = models.load(run, weights="last")
    own = mmc if "MMC" in name else cross_entropy
    weak = {
        f"{column}@{k}": attack
        for k in scale.radii
        for column, attack in attacks.mmc_paper_attacks(k / 256, own).items()
    }
    found = under(weak, logits_fn, test.head(scale.n), run / "weak")
    row = {"clean": found.clean, **found.robust}
    row["zero gradient of CE"] = blindness(logits_fn, test.head(scale.n))
    if seed == 0:
        radii = [k for k in scale.radii if k >= 8 or "AT" not in name]  # below, they cost hours
        hard = {f"worst@{k}": strongest(k, scale) for k in radii}
        found = under(hard, logits_fn, test.head(scale.strong), run / "strong")
        row |= {"clean (strong)": found.clean, **found.robust}
        for k in radii:
            parts = [[s for s in found.stages[f"worst@{k}"] if s["path"][0] == i] for i in (0, 1)]
            ends = [part[-1]["accuracy"] if part else None for part in parts]
            row[f"pgd-mt@{k}"] = found.clean if ends[0] is None else ends[0]
            row[f"adaptive@{k}"] = row[f"pgd-mt@{k}"] if ends[1] is None else ends[1]
    return row


def blindness(logits_fn, test: data.Dataset) -> float:
    """The fraction of images, of those it gets right, where the plain CE has no gradient at all."""
    images, how = data.to_float(test.images), {"indices": test.indices}
    pgd, key = attacks.PGD(Linf(8 / 256)), jax.random.key(0)
    return evaluation.zero_gradient(logits_fn, images, test.labels, pgd, key, **how)


def strongest(k: int, scale: Scale) -> attacks.WorstOf:
    """Margins towards every class, every objective that sees a distance head, AutoAttack."""
    threat = Linf(k / 256)
    return attacks.WorstOf(
        (
            attacks.MultiTargetedPGD(threat),
            attacks.Adaptive(threat, restarts=scale.restarts),
            attacks.AutoAttack(threat),
        )
    )


def under(named: dict, logits_fn, test: data.Dataset, journal: Path) -> evaluation.Report:
    """Evaluate; a killed run resumes."""
    images = np.asarray(data.to_float(test.images))
    key, how = jax.random.key(0), {"indices": test.indices, "journal": journal, "progress": True}
    how |= {"batch_size": 4} if jax.default_backend() == "cpu" else {}  # few survive
    return evaluation.evaluate(logits_fn, images, test.labels, named, key, **how)


def main(options: argparse.Namespace) -> None:
    """Train what is missing, measure it, and write the table and the figure after every seed."""
    started, scale = time.time(), SCALES[options.scale]
    test = data.load(options.data, "test", options.data_dir)
    table: dict[str, list[dict]] = {}
    trainings: dict[str, list[dict]] = {}
    for seed in range(scale.seeds):
        for name in wanted(options, rows_of(scale)):
            if not (seed and "AT" in name):
                run = train(name, seed, scale, options)
                row = once(run / "table.json", partial(measure, name, seed, run, scale, test))
                table.setdefault(name, []).append(row)
                origin = files.read_json(run / "training.json")["provenance"]
                trainings.setdefault(name, []).append(origin)
        if not options.only:
            write(table, trainings, scale, options, started)


def write(table, trainings, scale: Scale, options: argparse.Namespace, started: float) -> None:
    """The result as JSON, as a figure, and the table on the screen."""
    result = {
        "provenance": report.provenance(report.command_line(), 0, started),
        "scale": dataclasses.asdict(scale),
        "published": PUBLISHED if slug(options.data) == "cifar10" else {},
        "rows": table,
        "trainings": trainings,
    }
    write_result(options.results, result)
    redraw(options.results, draw)
    print(markdown(table, result["published"], scale.radii))


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "mmc", draw, BATCH_SIZE)
