"""The robust speedrun: how many seconds to how much accuracy under AutoAttack, and what helps.

Command:   python experiments/speedrun.py --scale cpu --data-dir DIR   (DIR: prepared TFDS
           sets; or --data arrays:DIR; --only recipe for the recipe alone; --scale smoke: the path
           alone, on digits)
Hardware:  smoke: three minutes of two CPU cores; cpu: a narrow net, the first 10,000 images, 6
           epochs, three seeds, 40 minutes of one core; gpu: PreActResNet-18, all images, 20 epochs,
           one seed, minutes of one H100 or H200 (`--only recipe` fits into nine).
Claim:     two attack steps, one cycle of the learning rate, averaged weights and smoothed labels
           cost a fraction of PGD-10 training and lose little.
Measured:  cpu: 19.4 % in the worst case after 71 CPU seconds; ten attack steps in place of two
           20.1 % after 172 s, one step 19.6 % after 56 s (deviations of .5 to 1.0 over seeds). No
           other ingredient shows at this size. gpu: nothing yet.
           Results go to results/speedrun_{data}_{scale}.json.
Source:    published for ResNet-18, CIFAR-10, Linf 8/255, without extra data, on an unnamed GPU
           (FastAT Benchmark): AutoAttack 48.64 % after 1,824 s (FGSM-RS-CS), 49.99 after 2,605 s
           (LIET), 50.49 after 7,027 s (PGD-AT with averaged weights), 44.33 after 6,954 s (PGD-AT
           without).

A row changes one ingredient of the recipe. Seconds are those of `robustjax train`, compilation and
validation included, in one piece; they compare only between rows of one machine. The worst case is
AutoAttack's, on a CPU that of its fast form.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from runner import (
    Scale,
    evaluated,
    launch,
    merged,
    once,
    over_seeds,
    scaled,
    slug,
    spread,
    tabulate,
    trained,
)

from robustjax import files

RECIPE = (
    "--attack.steps 2 --attack.step-size 5/255 --schedule one-cycle --ema 0.995 "
    "--label-smoothing 0.1 --optimizer.name nesterov --validation-attack none --no-early-stopping"
)
ROWS = {  # what is changed -> flags, of which a later one wins
    "recipe": "",
    "weights not averaged": "--ema 0",
    "labels not smoothed": "--label-smoothing 0",
    "piecewise schedule": "--schedule piecewise",
    "one attack step": "--attack.steps 1 --attack.step-size 10/255",
    "ten attack steps": "--attack.steps 10 --attack.step-size 2/255",
    "BatchNorm in train mode": "--bn commit",
}
EVALUATION = "--curve none --dtype float32 --weights last"


SCALES = {
    "smoke": Scale(
        "--model cnn --width 4 --epochs 2 --batch-size 64 --lr 0.1",
        "--n 32 --attacks pgd-20 autoattack-fast",
        1,
    ),
    "cpu": Scale(
        "--model resnet-8 --width 8 --epochs 6 --examples 10000 --batch-size 128 --lr 0.2",
        "--n 1000 --attacks pgd-20 autoattack-fast",
        3,
    ),
    "gpu": Scale(
        "--model preact-resnet-18 --dtype bfloat16 --epochs 20 --batch-size 512 --lr 0.4",
        "--n 1000 --attacks pgd-20 autoattack",
        1,
    ),
}


def measure(name: str, seed: int, scale: Scale, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate one row with one seed."""
    where = f"speedrun-{slug(options.data)}-{options.scale}"
    run = options.runs / where / f"{name.replace(' ', '-')}-seed-{seed}"
    words = ["pgd-at", *merged(RECIPE, scale.train, ROWS[name], f"--seed {seed}")]
    cost = once(run / "cost.json", lambda: seconds(lambda: trained(run, words, options)))
    found = evaluated(run, [*scale.evaluate.split(), *EVALUATION.split()], options)
    return {
        "clean": found["clean"],
        **found["robust"],
        "worst case": found["worst_case"],
        **cost,
        "training": files.read_json(run / "training.json")["provenance"],
        "evaluation": found["provenance"],
    }


def seconds(work: Callable[[], object]) -> dict[str, float]:
    """What it takes, on the clock and of the CPU."""
    wall, cpu = time.time(), time.process_time()
    work()
    return {"seconds": time.time() - wall, "cpu seconds": time.process_time() - cpu}


def lines(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A Markdown table: means and deviations over the seeds of each row."""
    found = ["| | clean | PGD-20 | worst case | CPU seconds |", "| --- |" + " ---: |" * 4]
    for name, seeds in rows.items():
        columns = ("clean", "pgd-20", "worst case")
        cells = [spread(row[column] for row in seeds) for column in columns]
        cells.append(spread((row["cpu seconds"] for row in seeds), unit=1))
        found.append(f"| {name} | {' | '.join(cells)} |")
    return found


def main(options: argparse.Namespace) -> None:
    """Run the rows that are wanted, and print and keep the table."""
    made = over_seeds(measure, SCALES[options.scale], options)
    tabulate(options, ROWS, made, lines)


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "speedrun")
