"""The speed at which the losses of the g-SCE family converge: error over epochs and seconds.

Command:   python experiments/convergence.py --scale cpu --data-dir DIR   (DIR: prepared TFDS sets)
Hardware:  the natural rows of mmc_cifar10.py, whose runs it reuses if they exist.
Claim:     MMC needs fewer epochs than the softmax losses to the same error: its gradient in the
           features, z - mu_y, contracts at a constant rate, theirs is scaled by 1 - p_y and stalls.
Measured:  gpu: after 1, 15 and 30 epochs MMC errs on 44.9, 14.7 and 10.0 % of validation images,
           Center on 55.5, 16.8 and 12.6 %, SCE on 58.5, 19.0 and 13.6 %; one seed, and the seconds
           were taken on a shared GPU. cpu, three seeds: after 4 epochs 31.1, 36.7 and 37.0 %.
           Results go to results/convergence_{data}_{scale}.json and .png. The validation split is
           carved from train; the recipe is that of mmc_cifar10.py, lr .01 for all, and MMC without
           its 1/2 has a gradient twice as long.
Source:    Pang et al., ICLR 2020; the talk shows test error over epochs and time, without numbers.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from figures import LOSS_COLORS, plain_ticks, redraw
from mmc_cifar10 import BATCH_SIZE, SCALES, train
from runner import added, launch, scaled, wanted

from robustjax import files, report

LOSSES = ("SCE", "Center", "MMLDA", "L-GM", "MMC-10")


def course(run) -> dict[str, Any]:
    """A run's device, and its epochs, seconds and error after each epoch."""
    rows = [r for r in report.read_metrics(run / "metrics.jsonl") if r["split"] == "validation"]
    return {
        "device": files.read_json(run / "training.json")["provenance"]["device"],
        "epoch": [r["epoch"] for r in rows],
        "seconds": [r["seconds"] for r in rows],
        "error": [1 - r["accuracy"] for r in rows],
    }


def draw(results: dict[str, Any], png: Path) -> None:
    """The mean over seeds, every seed beside it; over seconds if all were trained on one device."""
    courses = results["courses"]
    devices = {c.get("device") for seeds in courses.values() for c in seeds}
    units = ("epoch", "seconds")[: 1 + (len(devices) == 1)]
    with report.figure(png, len(units), 1, (4.6, 3.4), sharey=True) as axes:
        for ax, unit in zip(axes, units, strict=True):
            for name, seeds in courses.items():
                color = LOSS_COLORS[name.removesuffix("-10")]
                x, y = (np.mean([c[k] for c in seeds], 0) for k in (unit, "error"))
                ax.plot(x, 100 * y, marker="o", markersize=3, color=color, label=name)
                for c in seeds:
                    ax.plot(c[unit], 100 * np.array(c["error"]), color=color, alpha=0.25, lw=0.8)
            ax.set(xlabel=f"training time, {unit}" if unit == "seconds" else unit, yscale="log")
            plain_ticks(ax.yaxis)
        axes[0].set_ylabel("validation error, %")
        axes[0].xaxis.get_major_locator().set_params(integer=True)
        axes[0].legend()


def main(options) -> None:
    """Train what is missing; write the courses and the figure of all that are there."""
    started, scale = time.time(), SCALES[options.scale]
    for name in wanted(options, LOSSES):
        seeds = [course(train(name, seed, scale, options)) for seed in range(scale.seeds)]
        courses = added(options.results, "courses", name, seeds, started)
    redraw(options.results, draw)
    for name, seeds in courses.items():
        print(name, [f"{100 * e:.1f}" for e in np.mean([c["error"] for c in seeds], 0)])


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "convergence", draw, BATCH_SIZE)
