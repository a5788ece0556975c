"""`robustjax quickstart`: the whole job on bundled images, in minutes on a CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import robustjax as rj
from robustjax.cli.evaluate import EvaluateOptions, evaluate
from robustjax.cli.flags import read
from robustjax.cli.report import ReportOptions, report
from robustjax.cli.train import TrainOptions, train


@dataclasses.dataclass(frozen=True)
class QuickstartOptions:
    """Train three models on bundled images, attack them, write reports and figures.

    They are trained by softmax cross-entropy and the Max-Mahalanobis center loss (MMC) on clean
    images, and by adversarial training. PGD on the cross-entropy misses how weak MMC is; PGD on
    the margins to every class (pgd-mt) shows it.

    Args:
      out: the folder for the runs; completed runs there are not trained again.
      epochs: passes over the 1,300 training images.
      seed: of everything.
    """

    out: Path = Path("runs/quickstart")
    epochs: int = 12
    seed: int = 0


def command(words: Sequence[str]) -> None:
    """`robustjax quickstart` with these words."""
    options = read(QuickstartOptions, "quickstart", words)
    rj.parallel.use_all_cores()
    quickstart(options)


def quickstart(options: QuickstartOptions) -> None:
    """Train the three models, evaluate each, and print one table."""
    schedule = rj.training.SCHEDULES["one-cycle"]
    recipe = rj.training.Recipe(epochs=options.epochs, batch_size=64, schedule=schedule)
    runs = [options.out / name for name in ("natural", "mmc", "pgd-at")]
    for run in runs:
        training = TrainOptions(run, threat="linf", eps=0.2, seed=options.seed, resume=True)
        lr = 0.02 if run.name == "mmc" else 0.05  # squared distances to centers of norm 10
        train(rj.training.METHODS[run.name], dataclasses.replace(recipe, lr=lr), training)
        named = ("fgsm", "pgd-20", "pgd-20x3", "pgd-mt-20")  # 'adaptive' wins by the last
        how = {"seed": options.seed, "batch_size": 512, "adaptive": False}
        evaluate(EvaluateOptions(run, named, **how))
    report(ReportOptions(tuple(runs)))
    figures = (str(png) for run in runs for png in sorted(run.glob("*.png")))
    print("figures:", *figures, sep="\n  ")
