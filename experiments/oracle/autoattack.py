"""What pyautoattack's standard AutoAttack finds: the outside truth for ours.

Command:   python experiments/oracle/autoattack.py mnist --data-dir DIR     (then cifar10)
Needs:     pip install '.[oracle]' h5py; DIR is a folder of prepared TFDS sets.
Hardware:  one thread of a CPU; see `seconds` in the files.
Output:    tests/golden/autoattack_{mnist,cifar10}.npz, written after every stage: a run that is
           interrupted goes on where it was.

The four stages of the standard version run one by one on the survivors of the stages before, in
one batch, each with the seed of the evaluation: what `run_standard_evaluation` does when all
images fit its batch. A point counts as fooled only if it lies in the ball and in [0, 1] and the
network says so here. `--survey` prints APGD-CE's accuracy over some eps, to choose one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch_nets
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack

from robustjax import data

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
STAGES = ("apgd-ce", "apgd-t", "fab-t", "square")
SEEDS = (0, 1, 2)
PROBLEMS = {  # the network, the number of test images, eps
    "mnist": (torch_nets.mnist, 200, 0.3),
    "cifar10": (torch_nets.cifar10, 32, 0.625 / 255),  # 1/255 would leave under a fifth
}
SLACK = 1e-6  # float32 rounding of x + eps and of the projections


def attack(net, stage: str, seed: int, eps: float, x, y) -> np.ndarray:
    """One stage of the standard version -> (N,) bool, whether the network withstands it."""
    adversary = AutoAttack(net, norm="Linf", eps=eps, seed=seed, version="standard")
    adversary.attacks_to_run = [stage]
    x_adv, _ = adversary.run_standard_evaluation(x, y, batch_size=len(x))
    assert (x_adv - x).abs().max() <= eps + SLACK and x_adv.min() >= 0 and x_adv.max() <= 1
    with torch.no_grad():
        return (net(x_adv).argmax(1) == y).numpy()


def survey(net, x, y) -> None:
    for quarters in range(1, 9):
        adversary = APGDAttack(net, n_iter=20, eps=quarters / 4 / 255, norm="Linf", seed=0)
        accuracy = (net(adversary.perturb(x, y)).argmax(1) == y).float().mean()
        print(f"eps {quarters / 4}/255: {accuracy:.3f}", flush=True)


def begin(name: str, net, x, y, eps: float) -> dict[str, np.ndarray]:
    """What is known before the first stage; -1 and NaN stand where a stage has not run."""
    with torch.no_grad():
        logits = net(x).numpy()
    return {
        "logits": logits,
        "labels": y.numpy().astype(np.int32),
        "clean": logits.argmax(1) == y.numpy(),
        "eps": np.float64(eps),
        "stages": np.array(STAGES),
        "seeds": np.array(SEEDS),
        "robust": np.full((len(SEEDS), len(STAGES), len(x)), -1, np.int8),
        "seconds": np.full((len(SEEDS), len(STAGES)), np.nan),
        "about": np.array(
            [f"first {len(x)} test images of {name}, in TFDS order"]
            + [f"{p} {importlib.metadata.version(p)}" for p in ("pyautoattack", "torch", "numpy")]
        ),
    }


def save(path: Path, golden: dict[str, np.ndarray]) -> None:
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **golden)
    os.replace(partial, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument("--data-dir", help="the folder of prepared TFDS sets")
    parser.add_argument("--survey", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    make, size, eps = PROBLEMS[options.problem]
    test = data.load(options.problem, "test", options.data_dir).head(size)
    x = torch.from_numpy(np.moveaxis(test.images, -1, 1).astype(np.float32) / 255).contiguous()
    y, net = torch.from_numpy(test.labels).long(), make()
    if options.survey:
        return survey(net, x, y)

    path = GOLDEN / f"autoattack_{options.problem}.npz"
    golden = dict(np.load(path)) if path.exists() else begin(options.problem, net, x, y, eps)
    robust, seconds = golden["robust"], golden["seconds"]
    for i, seed in enumerate(SEEDS):
        before = golden["clean"].astype(np.int8)
        for j, stage in enumerate(STAGES):
            if robust[i, j, 0] < 0:
                start, rows = time.perf_counter(), np.flatnonzero(before)
                robust[i, j] = before
                if len(rows):
                    robust[i, j, rows] = attack(net, stage, seed, eps, x[rows], y[rows])
                seconds[i, j] = round(time.perf_counter() - start, 1)
                save(path, golden)
            before = robust[i, j]
            print(f"seed {seed} {stage}: {before.sum()} of {size}, {seconds[i, j]} s", flush=True)
    return None


if __name__ == "__main__":
    main()
