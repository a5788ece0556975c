"""FastAutoAttack against AutoAttack: what resists, and model calls an image.

Command:   python experiments/benchmarks/fast_autoattack.py RUNS --data-dir DIR --n 300 --seeds 3
           with --out experiments/results/fast_autoattack.json to keep it
Hardware:  two CPU cores, about 12 minutes to train the networks (those that RUNS has not yet) and
           20 to attack them.
Claim:     on every network at most 0.1 points above AutoAttack, at a tenth of its calls.
Measured:  see experiments/results/fast_autoattack.json and the README. Kept on five of the six;
           missed on mnist-mmc, whose logits are distances and which no attack decides quickly.
Source:    Liu et al., CVPR 2022 (A3): 637 forward and 314 backward passes an image against 7,312
           and 1,788 of AutoAttack, on the MNIST network of TRADES.

AutoAttack runs once, with the first seed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import harness
import jax
import numpy as np

from robustjax import data, evaluation, models
from robustjax.attacks import AutoAttack, FastAutoAttack
from robustjax.threats import L2, Linf
from robustjax.typing import Threat


class Subject(NamedTuple):
    """A network: how it is trained, and the ball in which it is attacked."""

    training: str
    threat: Threat


CNN = "--data mnist --model cnn --batch-size 128 --optimizer.name adam --optimizer.weight-decay 0 "
CNN += "--lr 0.002 --schedule one-cycle "
STRONG = "--eps 0.3 --eps-warmup 0.3 --attack.steps 7 "
SUBJECTS = {
    "mnist-pgd": Subject(f"pgd-at {CNN}{STRONG}--width 16 --epochs 5", Linf(0.3)),
    "mnist-trades": Subject(
        f"trades {CNN}{STRONG}--width 16 --epochs 3 --validation-attack none", Linf(0.3)
    ),
    "mnist-natural": Subject(f"natural {CNN}--width 8 --epochs 1", Linf(0.06)),
    "mnist-l2": Subject(
        f"pgd-at {CNN}--width 8 --epochs 2 --threat l2 --eps 1.5 --attack.steps 7 "
        "--validation-attack none",
        L2(1.5),
    ),
    "mnist-mmc": Subject(f"mmc {CNN}--width 16 --epochs 2 --validation-attack none", Linf(0.1)),
    "cifar-pgd": Subject(
        "pgd-at --data cifar10 --model resnet-8 --epochs 2 --examples 20000 --batch-size 128 "
        "--lr 0.2 --schedule one-cycle --attack.steps 5 --validation-attack none",
        Linf(8 / 255),
    ),
}


def trained(name, options):
    """The network, trained if RUNS has it not."""
    run = options.runs / name
    if not (run / "weights.npz").exists():
        words = [*SUBJECTS[name].training.split(), "--data-dir", options.data_dir, "--out", run]
        subprocess.run([sys.executable, "-m", "robustjax", "train", *map(str, words)], check=True)
    logits_fn, _, config = models.load(run, dtype="float32")
    test = data.load(config["data"]["name"], "test", options.data_dir).head(options.n)
    return logits_fn, np.asarray(data.to_float(test.images)), test.labels


def attacked(attack, subject, seed, clock):
    """The verdict, the calls an image and the seconds."""
    started = clock()
    found = evaluation.evaluate(*subject, {"it": attack}, jax.random.key(seed), diagnose=False)
    stages = found.stages["it"]
    calls = [sum(s[kind] for s in stages) / len(subject[2]) for kind in ("forwards", "backwards")]
    fooled = found.examples["it"]["fooled"]
    robust = float(1 - np.mean(fooled))
    about = {"robust": robust, "forwards": calls[0], "backwards": calls[1]}
    return about | {"seconds": clock() - started}, fooled


def main():
    parser = harness.parser(__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="the folder of the run directories")
    parser.add_argument("--data-dir", help="the folder of prepared TFDS sets")
    parser.add_argument("--n", type=int, default=300, help="the first n test images")
    parser.add_argument("--seeds", type=int, default=3, help="of FastAutoAttack")
    options = parser.parse_args()
    began, clock = time.time(), harness.start(options, batch_size=32)

    rows = {}
    for name, (_, threat) in SUBJECTS.items():
        subject = trained(name, options)
        whole, broken = attacked(AutoAttack(threat), subject, 0, clock)
        rows[name] = {"autoattack": whole, "fast": []}
        for seed in range(options.seeds):
            fast, fooled = attacked(FastAutoAttack(threat), subject, seed, clock)
            fast["only_autoattack"] = np.flatnonzero(broken & ~fooled).tolist()
            fast["only_fast"] = np.flatnonzero(fooled & ~broken).tolist()
            rows[name]["fast"].append(fast)
        for kind, runs in (("autoattack", [whole]), ("fast", rows[name]["fast"])):
            for run in runs:
                print(
                    f"{name:14s} {kind:10s} robust {100 * run['robust']:5.1f} %  "
                    f"{run['forwards']:7.0f} F {run['backwards']:6.0f} B  {run['seconds']:6.1f} s",
                    flush=True,
                )
    about = {name: {"training": s.training, "threat": s.threat} for name, s in SUBJECTS.items()}
    harness.keep(options, began, n=options.n, subjects=about, rows=rows)


if __name__ == "__main__":
    main()
