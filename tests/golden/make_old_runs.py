"""The runs of tests/golden/runs, which every later version must read, and old_runs.npz.

They are runs of commit 35a66fe, trained and read by its own code:

    git worktree add OLD 35a66fe
    PYTHONPATH=OLD python tests/golden/make_old_runs.py

A run keeps its configuration, best weights and records; old_runs.npz keeps eight test images and
each run's logits of them.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from robustjax import cli, data, models

GOLDEN = Path(__file__).parent
RUNS = {
    "pgd-at-cnn": "pgd-at --model cnn --width 2 --epochs 8",
    "mmc-resnet-8": "mmc --model resnet-8 --width 2 --epochs 2",  # BatchNorm, head of distances
}
KEPT = ("config.json", "weights.npz", "metrics.jsonl", "training.json")


def main() -> None:
    """Train both, and write what is kept of them."""
    found = {"images": data.load("digits", "test").images[:8]}
    for name, words in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / name
            cli.main(["train", *words.split(), "--data", "digits", "--out", str(made)])
            kept = GOLDEN / "runs" / name
            kept.mkdir(parents=True, exist_ok=True)
            for file in KEPT:
                shutil.copy(made / file, kept / file)
            logits_fn, _, _ = models.load(made)
        found[name] = np.asarray(logits_fn(np.float32(found["images"]) / 255))
    np.savez_compressed(GOLDEN / "old_runs.npz", **found)


if __name__ == "__main__":
    main()
