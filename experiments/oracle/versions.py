"""AutoAttack's other versions and norms, and Square, against pyautoattack: few images each.

Command:   nice python experiments/oracle/versions.py --data-dir DIR
Needs:     pip install '.[oracle]'; DIR: a folder of prepared TFDS sets.
Hardware:  two CPU cores; about ten minutes on idle ones.
Claim:     'plus', 'rand' and the standard version in L2 and L1 leave at most one image more than
           pyautoattack's; Square fools as many as the authors' with as many queries, to two
           standard errors of the difference.
Measured:  robust images, ours and theirs: plus 5 and 5 of 12, L2 15 and 17 of 96, L1 17 and 16 of
           96, rand 1 and 2 of 24; Square, over three seeds: 33, 29 and 33 % fooled against 27, 31
           and 31 % in Linf, L2 and L1 (oracle_versions.json in experiments/results).

The MNIST network of pyautoattack's wheel, the first test images, radii that leave some of them:
the network withstands Linf 0.3, and hides its gradients from L2 and L1. 'rand' attacks it behind
Gaussian noise on its input; an image counts as robust if the most frequent prediction of `DRAWS`
fresh draws is right, the same judge for both (pyautoattack itself counts a success by one draw, the
one that its last step saw). With so few images, one of them is several percent: equal counts say
that nothing is missing, not which is stronger.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import autoattack as oracle
import jax
import jax.numpy as jnp
import nets
import numpy as np
import torch
import torch_nets
from jax.tree_util import Partial
from pyautoattack.square import SquareAttack

from robustjax import attacks, data, evaluation, files, parallel, report
from robustjax.threats import L1, L2, Linf
from robustjax.typing import Threat

sys.path.append(str(Path(__file__).parents[1]))
import origins
from origins import RESULTS

CASES = {  # version, threat, the number of images
    "plus, Linf": ("plus", Linf(0.35), 12),
    "standard, L2": ("standard", L2(1.8), 96),
    "standard, L1": ("standard", L1(9.0), 96),
    "rand, Linf": ("rand", Linf(0.35), 24),
}
IMAGES = 48  # for Square
SIGMA, DRAWS = 0.1, 101
SQUARES, QUERIES, SEEDS = (Linf(0.35), L2(1.8), L1(9.0)), 500, (0, 1, 2)


class Subject(NamedTuple):
    """The images with their labels, and the network twice."""

    images: np.ndarray
    labels: np.ndarray
    ours: Any
    theirs: torch.nn.Module

    def head(self, n: int) -> Subject:
        return self._replace(images=self.images[:n], labels=self.labels[:n])

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(np.moveaxis(self.images, -1, 1).copy())
        return x, torch.from_numpy(self.labels).long()


def noisy(net, key, images):
    return net(images + SIGMA * jax.random.normal(key, images.shape))


class Noisy(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x + SIGMA * torch.randn_like(x))


def votes(subject: Subject, images: np.ndarray) -> np.ndarray:
    """(N,) bool: the most frequent prediction over fresh draws of the noise is right."""

    @jax.jit
    def draw(net, key, images):
        return noisy(net, key, images).argmax(-1)

    key = jax.random.key(2**20)
    seen = [draw(subject.ours, jax.random.fold_in(key, i), images) for i in range(DRAWS)]
    counts = jax.nn.one_hot(jnp.stack(seen), 10).sum(0)
    return np.asarray(counts.argmax(-1)) == subject.labels


def run_ours(version: str, threat: Threat, subject: Subject, seed: int) -> np.ndarray:
    """What AutoAttack leaves, (N,) bool."""
    random = version == "rand"
    model = attacks.Randomized(Partial(noisy, subject.ours)) if random else subject.ours
    attack = {"autoattack": attacks.AutoAttack(threat, version)}
    found = evaluation.evaluate(
        model, subject.images, subject.labels, attack, jax.random.key(seed), diagnose=False
    )
    if random:
        return votes(subject, found.adversarial["autoattack"])
    return ~found.examples["autoattack"]["fooled"]


def run_theirs(version: str, threat: Threat, subject: Subject, seed: int) -> np.ndarray:
    """The same of pyautoattack."""
    net = Noisy(subject.theirs) if version == "rand" else subject.theirs
    norm, (x, y) = type(threat).__name__, subject.tensors
    adversary = oracle.adversary(net, norm, threat.eps, seed, version)
    x_adv = oracle.attack(adversary, x, y)
    if version == "rand":
        return votes(subject, np.moveaxis(x_adv.numpy(), 1, -1))
    return oracle.withstands(net, x_adv, y)


def contest(version: str, threat: Threat, subject: Subject, seed: int) -> dict[str, Any]:
    """What both leave of the same images, and how long it takes them, compilation included."""
    clock = [time.perf_counter()]
    mine = run_ours(version, threat, subject, seed)
    clock.append(time.perf_counter())
    peer = run_theirs(version, threat, subject, seed)
    clock.append(time.perf_counter())
    robust = {"robustjax": int(mine.sum()), "pyautoattack": int(peer.sum())}
    return {
        "eps": threat.eps,
        "n": len(mine),
        "robust": robust,
        "only_one_fools": {
            "robustjax": int((peer & ~mine).sum()),
            "pyautoattack": int((mine & ~peer).sum()),
        },
        "seconds": dict(zip(robust, np.diff(clock).round(1).tolist(), strict=True)),
    }


def square_rates(threat: Threat, subject: Subject) -> dict[str, list[float]]:
    """The fraction that Square fools, for every seed."""
    x, y = subject.tensors
    rates: dict[str, list[float]] = {"robustjax": [], "pyautoattack": []}
    for seed in SEEDS:
        found = evaluation.evaluate(
            subject.ours,
            subject.images,
            subject.labels,
            {"square": attacks.Square(threat, QUERIES)},
            jax.random.key(seed),
            diagnose=False,
        )
        rates["robustjax"].append(1 - found.robust["square"])
        square = SquareAttack(
            subject.theirs,
            norm=type(threat).__name__,
            n_queries=QUERIES,
            eps=threat.eps,
            seed=seed,
            resc_schedule=False,
        )
        rates["pyautoattack"].append(
            float(1 - oracle.withstands(subject.theirs, square.perturb(x, y), y).mean())
        )
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="the folder of prepared TFDS sets")
    parser.add_argument("--seed", type=int, default=0)
    origins.add_flag(parser)
    options = parser.parse_args()
    origins.check(RESULTS, options.dirty)
    started = time.time()
    parallel.use_all_cores()
    torch.set_num_threads(1)  # on a busy machine its threads wait for each other
    test = data.load("mnist", "test", options.data_dir).head(
        max(IMAGES, *(n for _, _, n in CASES.values()))
    )
    images, net = np.asarray(data.to_float(test.images)), nets.mnist_net(nets.wheel(nets.MNIST))
    subject = Subject(images, test.labels, net, torch_nets.mnist())

    squares = {}
    for threat in SQUARES:
        name = type(threat).__name__
        squares[name] = {"eps": threat.eps, **square_rates(threat, subject.head(IMAGES))}
        print("Square", name, squares[name], flush=True)
    ensembles = {}
    for name, (version, threat, n) in CASES.items():
        ensembles[name] = contest(version, threat, subject.head(n), options.seed)
        print(name, ensembles[name], flush=True)
    files.write_json(
        RESULTS / "oracle_versions.json",
        {
            **report.provenance(report.command_line(), options.seed, started),
            "peers": {p: importlib.metadata.version(p) for p in ("pyautoattack", "torch")},
            "sigma": SIGMA,
            "autoattack": ensembles,
            "square": {"n": IMAGES, "queries": QUERIES, "seeds": SEEDS, "fooled": squares},
        },
    )


if __name__ == "__main__":
    main()
