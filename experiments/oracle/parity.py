"""Imported networks against PyTorch: the same weights, the same images, the logits of both.

Command:   nice python experiments/oracle/parity.py
           nice python experiments/oracle/parity.py --golden     (tests/golden/parity.npz)
Needs:     pip install '.[oracle]' torchvision timm
Hardware:  two CPU cores; about fifteen minutes.
Claim:     no logit differs by more than 1e-5 of the largest, but with MeanSparse.
Measured:  experiments/results/parity.json, the table of docs/how_to/pytorch.md.

The weights are drawn (`foreign_states`), with statistics, scales and biases that are not their
initial ones. Two images each, in float32 on the CPU. MeanSparse alone differs by more: it jumps, so
a value that rounding carries over its threshold changes by the threshold.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

import foreign_nets
import jax
import numpy as np
import torch

from robustjax import files, models, report

sys.path.append(str(Path(__file__).parents[1]))
import origins
from origins import RESULTS

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "parity.npz"
IMAGES = 2


def images(side: int) -> np.ndarray:
    """(IMAGES, side, side, 3) in [0, 1]."""
    return np.random.default_rng(side).random((IMAGES, side, side, 3)).astype(np.float32)


def compare(case: foreign_nets.Case) -> dict[str, Any]:
    """The largest difference of two logits, the largest logit, and how many parameters."""
    net, x = foreign_nets.net_of(case), images(case.side)
    theirs = net(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    logits_fn, _ = models.from_torch(net.state_dict(), **case.options)
    ours = np.asarray(jax.jit(lambda f, x: f(x))(logits_fn, x))
    return {
        "difference": float(np.abs(ours - theirs).max()),
        "largest_logit": float(np.abs(theirs).max()),
        "parameters": sum(p.numel() for p in net.parameters()),
        "options": case.options,
    }


def write_golden() -> None:
    """Names, shapes and logits of the narrow networks; their weights are drawn again."""
    arrays = {}
    for name, case in {**foreign_nets.NARROW, **foreign_nets.NAMES}.items():
        net = foreign_nets.net_of(case)
        shapes = {key: list(value.shape) for key, value in net.state_dict().items()}
        x = torch.from_numpy(np.moveaxis(images(case.side), -1, 1).copy())
        about = {"shapes": shapes, "side": case.side, "options": case.options}
        arrays[name] = net(x).numpy()
        arrays[f"{name} about"] = np.array(json.dumps(about))
    np.savez_compressed(GOLDEN, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--golden", action="store_true", help="write the test's file instead")
    origins.add_flag(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)  # on a busy machine its threads wait for each other
    if options.golden:
        write_golden()
        return
    origins.check(RESULTS, options.dirty)
    started, rows = time.time(), {}
    for name, case in {**foreign_nets.FULL, **foreign_nets.CIFAR}.items():
        rows[name] = compare(case)
        print(name, rows[name], flush=True)
    peers = ("torch", "torchvision", "timm")
    files.write_json(
        RESULTS / "parity.json",
        {
            **report.provenance(report.command_line(), 0, started),
            "peers": {p: importlib.metadata.version(p) for p in peers},
            "images": IMAGES,
            "networks": rows,
        },
    )


if __name__ == "__main__":
    main()
