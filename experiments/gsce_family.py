"""Trained covariances in the g-SCE family: what L-GM and the general member gain from them.

Command:   python experiments/gsce_family.py --scale cpu --data-dir DIR   (DIR: prepared TFDS sets;
           --only L-GM for one row; --scale smoke: the path alone, on digits)
Hardware:  smoke: a minute of one CPU core; cpu: MNIST, a network of two convolutions, the first
           10,000 images, 6 epochs, three seeds, 15 minutes of one core.
Claim:     every member has its logits from centers mu_k and matrices Sigma_k. L-GM
           keeps the identity in its experiments, and MMC drops Sigma: what would it give?
Measured:  cpu: nothing but harm: a full Sigma takes 14 points of g-SCE's worst case, the others
           change nothing; L-GM resists least, 24 % where SCE resists 53.
           results/gsce_family_{data}_{scale}.json; docs/reproduce/mmc.md.
Source:    Wan et al., CVPR 2018 (L-GM); Pang et al., ICLR 2020 (g-SCE).

Natural training. The worst case is over margin attacks and a search without gradients.
`anisotropy` is the median over classes of the largest eigenvalue of Sigma_k over the smallest.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from mmc_at import EVALUATION
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

from robustjax import files, models

ROWS = {  # head -> the method
    "SCE": "sce",
    "L-GM": "lgm",
    **{f"L-GM, {kind}": f"lgm --covariance {kind}" for kind in ("isotropic", "diagonal", "full")},
    **{f"g-SCE, {kind}": f"gsce --precisions {kind}" for kind in ("isotropic", "diagonal", "full")},
}
BASE = (
    "--augment none --validation-attack none --batch-size 100 --optimizer.name adam "
    "--optimizer.weight-decay 0 --lr 0.001 --schedule one-cycle"
)
SCALES = {
    "smoke": Scale("--model cnn --width 4 --epochs 2", "--n 32 --eps 0.1", 1),
    "cpu": Scale("--model cnn --width 16 --examples 10000 --epochs 6", "--n 1000 --eps 0.1", 3),
}
COLUMNS = {"clean": "clean", "PGD-10": "pgd-10", "worst case": "worst case"}


def measure(name: str, seed: int, scale: Scale, options: argparse.Namespace) -> dict[str, Any]:
    """Train one net; its accuracy under attack, and the shape of its matrices."""
    where = f"family-{slug(options.data)}-{options.scale}"
    run = options.runs / where / f"{name.replace(', ', '-')}-seed-{seed}"
    method, *flags = ROWS[name].split()
    trained(run, [method, *flags, *merged(BASE, scale.train, f"--seed {seed}")], options)
    words = ["--weights", "last", *scale.evaluate.split(), *EVALUATION.split()]
    found = evaluated(run, words, options)
    logits_fn, _, _ = models.load(run, weights="last")
    return {
        "seed": seed,
        "clean": found["clean"],
        **found["robust"],
        "worst case": found["worst_case"],
        "anisotropy": anisotropy(logits_fn.args[0]["params"]["head"]),
        "training": files.read_json(run / "training.json")["provenance"],
        "evaluation": found["provenance"],
    }


def anisotropy(head: dict[str, Any]) -> float:
    """The largest eigenvalue of Sigma_k over the smallest, a median over classes."""
    if "factors" in head:
        values = np.linalg.svd(np.asarray(head["factors"], float), compute_uv=False) ** 2
    else:
        values = np.exp(np.asarray(head.get("log_precisions", np.zeros(1)), float))
    values = values.reshape(len(values), -1)
    return float(np.median(values.max(1) / values.min(1)))


def lines(table: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A Markdown table: means and deviations over the seeds."""
    made = [f"| | {' | '.join(COLUMNS)} | anisotropy |", "| --- |" + " ---: |" * 4]
    for name, seeds in table.items():
        cells = [spread(seed[column] for seed in seeds) for column in COLUMNS.values()]
        shape = np.mean([seed["anisotropy"] for seed in seeds])
        made.append(f"| {name} | {' | '.join(cells)} | {shape:.3g} |")
    return made


def main(options: argparse.Namespace) -> None:
    """Make what is missing; the table is written after each row."""
    made = over_seeds(measure, SCALES[options.scale], options)
    tabulate(options, ROWS, made, lines)


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "gsce_family", sets={"cpu": "mnist"})
