"""The results of pyautoattack's standard AutoAttack, a reference for ours.

Command:   python experiments/oracle/autoattack.py mnist --data-dir DIR     (then cifar10)
Needs:     pip install '.[oracle]'; DIR is a folder of prepared TFDS sets.
Hardware:  a GPU if PyTorch sees one, else one thread: six minutes a seed for mnist and over an
           hour for cifar10 on an idle core.
Output:    tests/golden/autoattack_{mnist,cifar10}.npz (read them with truth.py), written after
           every stage: an interrupted run resumes.

The four stages of the standard version run one by one on the survivors of the stages before, in
one batch, each with the seed of the evaluation: what `run_standard_evaluation` does when all
images fit its batch. `--survey` prints the accuracy under 20 steps of APGD-CE for some eps: at
1/255 a fifth of the CIFAR-10 images is left, at 0.5/255 six tenths.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time

import numpy as np
import torch
import torch_nets
import truth
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack

from robustjax import data

STAGES = ("apgd-ce", "apgd-t", "fab-t", "square")
SEEDS = (0, 1, 2)
PROBLEMS = {  # the network, the number of test images, eps
    "mnist": (torch_nets.mnist, 200, 0.3),
    "cifar10": (torch_nets.cifar10, 32, 0.7 / 255),
}
SLACK = 1e-6  # float32 rounding of x + eps and of the projections, times eps where it is above 1


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def adversary(net, norm: str, eps: float, seed: int, version: str) -> AutoAttack:
    """pyautoattack, all stages of a version."""
    device = next(net.parameters()).device
    return AutoAttack(net, norm=norm, eps=eps, seed=seed, version=version, device=device)


def attack(adversary: AutoAttack, x, y) -> torch.Tensor:
    """Its adversarial images (N, C, H, W), the clean one where it found none."""
    x_adv, _ = adversary.run_standard_evaluation(x, y, batch_size=len(x))
    order = {"Linf": float("inf"), "L2": 2, "L1": 1}[adversary.norm]
    distance = torch.linalg.vector_norm((x_adv - x).flatten(1), order, dim=1).max()
    if (
        distance > adversary.epsilon + SLACK * max(1, adversary.epsilon)
        or x_adv.min() < 0
        or x_adv.max() > 1
    ):
        raise RuntimeError(f"{adversary.attacks_to_run} left the ball or the box")
    return x_adv


def withstands(net, x_adv, y) -> np.ndarray:
    """(N,) bool, whether the network is right on adversarial images."""
    with torch.no_grad():
        return (net(x_adv).argmax(1) == y).cpu().numpy()


def survey(net, x, y) -> None:
    for quarters in range(1, 9):
        adversary = APGDAttack(net, n_iter=20, eps=quarters / 4 / 255, norm="Linf", seed=0)
        accuracy = (net(adversary.perturb(x, y)).argmax(1) == y).float().mean()
        print(f"eps {quarters / 4}/255: {accuracy:.3f}", flush=True)


def begin(test: data.Dataset, logits: np.ndarray, eps: float) -> truth.Truth:
    """The file before the first stage."""
    releases = [f"{p} {importlib.metadata.version(p)}" for p in ("pyautoattack", "torch", "numpy")]
    return truth.Truth(
        digest=np.array(truth.digest(test.images)),
        labels=test.labels,
        logits=logits,
        clean=logits.argmax(1) == test.labels,
        eps=np.float64(eps),
        stages=np.array(STAGES),
        seeds=np.array(SEEDS),
        robust=np.full((len(SEEDS), len(STAGES), len(test)), truth.NOT_RUN, np.int8),
        seconds=np.full((len(SEEDS), len(STAGES)), np.nan),
        about=np.array([f"first {len(test)} test images of {test.name}, TFDS order", *releases]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument("--data", help="arrays:DIR with the problem's images; None: TFDS")
    parser.add_argument("--data-dir", help="the folder of prepared TFDS sets")
    parser.add_argument("--survey", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    make, size, eps = PROBLEMS[options.problem]
    name = options.data or options.problem
    test = data.load(name, "test", options.data_dir).head(size)
    x = torch.from_numpy(np.moveaxis(test.images, -1, 1).astype(np.float32) / 255).contiguous()
    x, y, net = x.to(DEVICE), torch.from_numpy(test.labels).long().to(DEVICE), make().to(DEVICE)
    if options.survey:
        return survey(net, x, y)

    if truth.path_of(options.problem).exists():
        known = truth.read(options.problem)
    else:
        with torch.no_grad():
            known = begin(test, net(x).cpu().numpy(), eps)
    for i, seed in enumerate(SEEDS):
        before = known.clean.astype(np.int8)
        for j, stage in enumerate(STAGES):
            if known.robust[i, j, 0] == truth.NOT_RUN:
                start, rows = time.perf_counter(), np.flatnonzero(before)
                after = before.copy()
                if len(rows):
                    one = adversary(net, "Linf", eps, seed, "standard")
                    one.attacks_to_run = [stage]
                    after[rows] = withstands(net, attack(one, x[rows], y[rows]), y[rows])
                known.robust[i, j] = after
                known.seconds[i, j] = round(time.perf_counter() - start, 1)
                truth.write(options.problem, known)
            before = known.robust[i, j]
            print(f"seed {seed} {stage}: {before.sum()} of {size}, {known.seconds[i, j]} s")
    return None


if __name__ == "__main__":
    main()
