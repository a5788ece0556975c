"""The README's figure: what a blind attack says of three networks, and what an aimed one does.

Command:   python experiments/quickstart_figure.py   (trains the networks of `robustjax quickstart`
           into --runs, unless they are there)
Hardware:  three minutes of two CPU cores.
Claim:     PGD on the cross-entropy leaves MMC above adversarial training, PGD on the margins leaves
           it nothing.
Measured:  results/quickstart.json, results/quickstart.png.
Source:    masked gradients: Athalye et al., ICML 2018; MMC: Pang et al., ICLR 2020.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import figures
import jax
import numpy as np
import origins
from figures import ADVERSARIAL, LOSS_COLORS
from origins import RESULTS
from runner import parser

from robustjax import attacks, cli, data, evaluation, files, models, parallel, report
from robustjax.threats import Linf

EPS = np.linspace(0, 0.3, 7).tolist()
NETWORKS = {"natural": "natural", "mmc": "MMC", "pgd-at": "adversarial training"}
ATTACKS = {
    "cross-entropy": attacks.parse("pgd-20", Linf(0.2)),
    "margins": attacks.parse("pgd-mt-20", Linf(0.2)),
}


def main() -> None:
    """Train if necessary, measure, draw."""
    known, path = parser(__doc__), RESULTS / "quickstart.json"
    figures.add_flag(known)
    options = known.parse_args()
    if options.draw:
        figures.redraw(path, draw)
        return
    parallel.use_all_cores()
    origins.check(RESULTS, options.dirty)
    folder, started = options.runs / "quickstart", time.time()
    cli.main(["quickstart", "--out", str(folder)])
    test, key = data.load("digits", "test"), jax.random.key(0)
    curves = {}
    for run in NETWORKS:
        logits_fn = models.load(folder / run)[0]
        for name, attack in ATTACKS.items():
            curves[f"{run}, {name}"] = evaluation.curve(
                logits_fn, test.images, test.labels, attack, EPS, key
            )
    origin = report.provenance(report.command_line(), 0, started)
    table = report.table([folder / run for run in NETWORKS]).splitlines()
    result = {"provenance": origin, "table": table, "curves": curves}
    files.write_json(path, result)
    figures.redraw(path, draw)


def draw(results: dict[str, Any], png: Path) -> None:
    """A panel for each attack, a colour for each network; bands are standard errors."""
    colors = LOSS_COLORS["SCE"], LOSS_COLORS["MMC"], ADVERSARIAL
    with report.figure(png, 2, 1, (4.2, 3.2), sharey=True) as axes:
        for ax, name in zip(axes, ATTACKS, strict=True):
            for (run, label), color in zip(NETWORKS.items(), colors, strict=True):
                found = results["curves"][f"{run}, {name}"]
                accuracy, error = 100 * np.array(found["accuracy"]), 100 * np.array(found["stderr"])
                ax.fill_between(
                    EPS, accuracy - error, accuracy + error, color=color, alpha=0.2, lw=0
                )
                ax.plot(EPS, accuracy, color=color, marker="o", markersize=4, label=label)
            ax.set(title=f"PGD on the {name}", xlabel="L∞ radius ε", ylim=(0, 101), xlim=(0, 0.3))
            ax.set_xticks((0, 0.1, 0.2, 0.3), ("0", "0.1", "0.2", "0.3"))
        axes[0].set_ylabel("accuracy under attack, %")
        axes[1].legend(loc="upper right")


if __name__ == "__main__":
    main()
