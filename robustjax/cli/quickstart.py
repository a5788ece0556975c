"""`robustjax quickstart`: the whole job on bundled images, in minutes on a CPU."""

from __future__ import annotations

from pathlib import Path

from robustjax.cli.evaluate import Evaluation, evaluate
from robustjax.cli.show import show
from robustjax.cli.train import Options, train
from robustjax.training import METHODS, SCHEDULES, Recipe


def quickstart(out: Path = Path("runs/quickstart"), epochs: int = 12, seed: int = 0) -> None:
    """Train a natural and a robust model on bundled images, attack both, write reports and figures.

    Args:
      out: the folder for both runs; what is trained there already is not trained again.
      epochs: passes over the 1,300 training images.
      seed: of everything.
    """
    recipe = Recipe(epochs=epochs, batch_size=64, lr=0.05, schedule=SCHEDULES["one-cycle"])
    runs = [out / "natural", out / "pgd-at"]
    for run in runs:
        options = Options(run, threat="linf", eps=0.1, seed=seed, resume=True)
        train(METHODS[run.name], recipe, options)
        evaluate(Evaluation(run, ("fgsm", "pgd-20", "pgd-20x3"), seed=seed, batch_size=512))
    show(tuple(runs))
    print("figures:", *(str(p) for run in runs for p in sorted(run.glob("*.png"))), sep="\n  ")
