"""`robustjax quickstart`: the whole job on bundled images, in minutes on a CPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from robustjax.cli.evaluate import Evaluation, evaluate
from robustjax.cli.report import show
from robustjax.cli.train import Options, train
from robustjax.training import METHODS, SCHEDULES, Recipe


def quickstart(out: Path = Path("runs/quickstart"), epochs: int = 12, seed: int = 0) -> None:
    """Train three models on bundled images, attack them all, write reports and figures.

    Softmax cross-entropy and the Max-Mahalanobis center loss (MMC) on clean images, and adversarial
    training. PGD on the cross-entropy does not see how weak MMC is; on the margins to every class
    (pgd-mt) it does.

    Args:
      out: the folder for the runs; what is trained there already is not trained again.
      epochs: passes over the 1,300 training images.
      seed: of everything.
    """
    recipe = Recipe(epochs=epochs, batch_size=64, schedule=SCHEDULES["one-cycle"])
    runs = [out / name for name in ("natural", "mmc", "pgd-at")]
    for run in runs:
        options = Options(run, threat="linf", eps=0.1, seed=seed, resume=True)
        lr = 0.02 if run.name == "mmc" else 0.05  # squared distances to centers of norm 10
        train(METHODS[run.name], dataclasses.replace(recipe, lr=lr), options)
        how = {"seed": seed, "batch_size": 512, "adaptive": False}  # pgd-mt is its strongest part
        evaluate(Evaluation(run, ("fgsm", "pgd-20", "pgd-20x3", "pgd-mt-20"), **how))
    show(tuple(runs))
    print("figures:", *(str(p) for run in runs for p in sorted(run.glob("*.png"))), sep="\n  ")
