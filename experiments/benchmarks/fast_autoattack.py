"""FastAutoAttack against AutoAttack: what resists, and model calls an image.

Command:   python experiments/benchmarks/fast_autoattack.py RUNS --data-dir DIR
           with --out experiments/results/fast_autoattack.json to keep it
Needs:     pip install '.[oracle]' and h5py, for the two networks inside the pyautoattack wheel.
Hardware:  two CPU cores, about 5 minutes to train the networks (those that RUNS has not yet) and
           15 to attack them.
Claim:     on no network more images resist than resist AutoAttack, at a tenth of its calls.
Measured:  kept by four of seven networks, with two seeds each: mnist-natural, -dense, -pgd and -l2.
           mnist-mmc: two images more of 200 and one; mnist-plain-lax: one and none, at 11 % of the
           gradients; wheel-mnist: one and one.
           wheel-cifar10: not run.
Source:    Liu et al., CVPR 2022 (A3): 637 forward and 314 backward passes an image against 7,312
           and 1,788 of AutoAttack, on the MNIST network of TRADES.

AutoAttack runs once, with seed 0. For the two networks of the wheel its verdict and calls are those
of oracle_autoattack_*.json, in experiments/results, made by experiments/oracle/compare.py.
`shorter` is AutoAttack with a tenth of its steps and queries: the same calls without an idea.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import harness
import jax
import numpy as np
import outside_nets

from robustjax import data, evaluation, files, models, report
from robustjax.attacks import AutoAttack, FastAutoAttack
from robustjax.config import encode
from robustjax.threats import L2, Linf
from robustjax.typing import Threat

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
import nets
import truth
from origins import RESULTS


class Subject(NamedTuple):
    """A network: how it is trained, and the ball in which it is attacked."""

    training: str
    threat: Threat


MNIST = (
    "--data mnist --batch-size 128 --optimizer.name adam --optimizer.weight-decay 0 "
    "--lr 0.002 --schedule one-cycle --validation-attack none "
)
CNN = MNIST + "--model cnn --width 8 "
SUBJECTS = {
    "mnist-natural": Subject(f"natural {CNN}--examples 20000 --epochs 2", Linf(0.06)),
    "mnist-dense": Subject(
        f"n-fgsm {MNIST}--model outside_nets:Dense --eps 0.1 --examples 20000 --epochs 3", Linf(0.1)
    ),
    "mnist-plain-lax": Subject(
        f"n-fgsm {MNIST}--model outside_nets:PlainLax --eps 0.2 --examples 20000 --epochs 3",
        Linf(0.2),
    ),
    "mnist-pgd": Subject(
        f"pgd-at {CNN}--examples 30000 --epochs 5 --eps 0.3 --eps-warmup 0.3 --attack.steps 7",
        Linf(0.3),
    ),
    "mnist-l2": Subject(
        f"trades {CNN}--examples 20000 --epochs 3 --threat l2 --eps 1.5 --attack.steps 5", L2(1.5)
    ),
    "mnist-mmc": Subject(f"mmc {CNN}--examples 20000 --epochs 4", Linf(0.1)),
}
MODULES = {"mnist-dense": outside_nets.Dense(), "mnist-plain-lax": outside_nets.PlainLax()}
TRAINING = {name: subject.training for name, subject in SUBJECTS.items()}
WHEEL = {
    "wheel-mnist": (nets.mnist_net, nets.MNIST),
    "wheel-cifar10": (nets.cifar_net, nets.CIFAR10),
}


def trained(name, options):
    """The network, trained if RUNS has it not, its images and labels."""
    run = options.runs / name
    if not (run / "weights.npz").exists():
        words = [*SUBJECTS[name].training.split(), "--data-dir", options.data_dir, "--out", run]
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "robustjax", "train", *map(str, words)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path})
    module = MODULES.get(name)
    logits_fn, _, config = models.load(run, module=module)
    test = data.load(config["data"]["name"], "test", options.data_dir).head(options.n)
    return logits_fn, np.asarray(data.to_float(test.images)), test.labels


def in_the_wheel(name, options):
    """A network of the wheel, its images and labels; its threat; what AutoAttack has found."""
    make, weights = WHEEL[name]
    problem = name.removeprefix("wheel-")
    known = truth.read(problem)
    kept = files.read_json(RESULTS / f"oracle_autoattack_{problem}.json")
    robust = kept["robust_images_after_each_stage"]["square"]
    whole = verdict(robust["robustjax"], kept["stages"], kept["n"])
    whole["pyautoattack"] = robust["pyautoattack"]
    images = truth.images(problem, options.data_dir)
    return (make(nets.wheel(weights)), images, known.labels), Linf(float(known.eps)), whole


def attacked(attack, subject, seed, clock):
    """The verdict and its cost, and which images are broken."""
    started = clock()
    found = evaluation.evaluate(*subject, {"it": attack}, jax.random.key(seed), diagnose=False)
    fooled = found.examples["it"]["fooled"]
    about = verdict(int((~fooled).sum()), found.stages["it"], len(fooled))
    return about | {"seed": seed, "seconds": clock() - started}, fooled


def verdict(robust, stages, n):
    forwards, backwards = report.calls_an_image(stages, n)
    return {"n": n, "robust": robust, "forwards": forwards, "backwards": backwards}


def compared(name, threat, subject, whole, options, clock):
    """Print and return what resists AutoAttack, its short form, and the fast one."""
    shorter, _ = attacked(AutoAttack(threat, steps=10, queries=500), subject, 0, clock)
    fast = [attacked(FastAutoAttack(threat), subject, s, clock)[0] for s in range(options.seeds)]
    for kind, row in (("autoattack", whole), ("shorter", shorter), *(("fast", f) for f in fast)):
        print(
            f"{name:16s} {kind:10s} {row['robust']:3d} of {row['n']} resist   "
            f"{row['forwards']:6.0f} F {row['backwards']:5.0f} B an image",
            flush=True,
        )
    return {"threat": encode(threat), "autoattack": whole, "shorter": shorter, "fast": fast}


def main():
    parser = harness.parser(__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="the folder of the run directories")
    parser.add_argument("--data-dir", help="the folder of prepared TFDS sets")
    parser.add_argument("--n", type=int, default=200, help="the first n test images")
    parser.add_argument("--seeds", type=int, default=2, help="of FastAutoAttack")
    options = parser.parse_args()
    began, clock = time.time(), harness.start(options)

    rows = {}
    for name in (*SUBJECTS, *WHEEL):
        if name in WHEEL:
            subject, threat, whole = in_the_wheel(name, options)
        else:
            subject, threat = trained(name, options), SUBJECTS[name].threat
            whole, _ = attacked(AutoAttack(threat), subject, 0, clock)
        rows[name] = compared(name, threat, subject, whole, options, clock)
        harness.keep(options, began, training=TRAINING, rows=rows)


if __name__ == "__main__":
    main()
