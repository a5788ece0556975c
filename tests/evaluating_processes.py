"""One evaluation, as a script that several processes share: what each of them returns.

    python evaluating_processes.py FOLDER ADDRESS COUNT PROCESS [SAVES]

With SAVES the process kills itself once it has saved as many stages.
"""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from robustjax import attacks, evaluation, parallel
from robustjax.evaluation import journal
from robustjax.threats import Linf


def found(folder, count=37):
    """What one call of each function returns for images that no number of processes divides."""
    rng = np.random.default_rng(0)
    weights = jax.tree_util.Partial(logits, rng.normal(size=(16, 3)).astype(np.float32))
    images = rng.uniform(0.2, 0.8, (count, 4, 4, 1)).astype(np.float32)
    labels = np.asarray(weights(images)).argmax(-1)
    linf, key = Linf(0.05), jax.random.key(0)
    pgd, square = attacks.PGD(linf, steps=3), attacks.Square(linf, queries=10)
    named = {"both": attacks.WorstOf((pgd, square))}
    subject = weights, images, labels
    report = evaluation.evaluate(*subject, named, key, journal=folder / "journal")
    return report.flat_examples() | {
        "image": report.adversarial["both"],
        "stages": [row["accuracy"] for row in report.stages["both"]],
        "curve": evaluation.curve(*subject, pgd, (0.01, 0.1), key)["accuracy"],
        "perturbed": attacks.perturb(pgd, weights, key, images, labels),
    }


def logits(weights, images):
    return images.reshape(len(images), -1) @ weights


def kill_after(saves):
    """Kill this process once it has saved so many stages."""
    save = journal.FileStore.save
    left = iter(range(saves - 1, -1, -1))

    def dying(self, take, last):
        save(self, take, last)
        if last and not next(left):
            os.kill(os.getpid(), signal.SIGKILL)

    journal.FileStore.save = dying


if __name__ == "__main__":
    folder, address, count, process, *saves = Path(sys.argv[1]), *sys.argv[2:]
    parallel.initialize(address, int(count), int(process))
    if saves:
        kill_after(int(saves[0]))
    np.savez(folder / f"{process}.npz", **found(folder))
