"""Three training steps of seven methods, by their formulas in plain PyTorch (torch_methods.py).

Command:   python experiments/oracle/training_steps.py
Needs:     pip install '.[oracle]'
Hardware:  one CPU core; seconds.
Output:    tests/golden/training_steps.npz: what every method is given, and after each step its
           loss, the change of the images, all weights and BatchNorm's running statistics.
Claim:     the step of `robustjax train` finds the same numbers (tests/test_oracle_training.py).
Measured:  to 4e-7 on losses and statistics, 3e-7 on weights, 7e-8 on images: float32's rounding.

Each step has a batch of its own, and the optimiser is `torch.optim.SGD`: momentum, running
statistics and Free's perturbation are carried on. The random draws are part of what is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch_methods import CHANNELS, CLASSES, METHODS, Batch, network

GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "training_steps.npz"
SEED = 81
STEPS, SIZE, SHAPE = 3, 6, (4, 4, CHANNELS)  # training steps, B, (H, W, C)
LR, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 0.1  # a decay that shows in three steps


def problem(seed: int) -> dict[str, np.ndarray]:
    """The first weights and statistics; images (steps, B, H, W, C) uint8, labels and draws."""
    rng = np.random.default_rng(seed)
    shape = (STEPS, SIZE, *SHAPE)
    given = {
        "image": np.clip(rng.normal(128, 80, shape), 0, 255).astype(np.uint8),  # some saturate
        "label": rng.integers(0, CLASSES, shape[:2], np.int32),
        "uniform": rng.uniform(-1, 1, shape),
        "normal": rng.normal(size=shape),
    }
    for name, value in tensors(network()).items():
        if value.ndim > 1:
            value = rng.normal(0, np.sqrt(2 / value[0].size), value.shape)
        elif name.endswith(("weight", "var")):
            value = rng.uniform(0.5, 1.5, value.shape)
        else:
            value = rng.normal(0, 0.2, value.shape)
        given[f"before/{name}"] = value
    # Both sides begin at the same numbers, so at those that float32 can hold.
    return {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in given.items()}


def tensors(net: nn.Module) -> dict[str, np.ndarray]:
    """Copies of the weights and running statistics."""
    state = net.state_dict()
    return {k: v.numpy().copy() for k, v in state.items() if v.is_floating_point()}


def from_last(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(images.astype(np.float64), -1, 1).copy())


def run(name: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The results of a method in each step, leading axis `STEPS`."""
    net = network()
    before = {name: torch.from_numpy(given[f"before/{name}"]) for name in tensors(net)}
    net.load_state_dict(before, strict=False)  # it counts batches too
    optimizer = torch.optim.SGD(net.parameters(), LR, MOMENTUM, weight_decay=WEIGHT_DECAY)
    delta, found = torch.zeros(SIZE, CHANNELS, *SHAPE[:-1]).double(), []
    for i in range(STEPS):
        image, uniform, normal = (from_last(given[k][i]) for k in ("image", "uniform", "normal"))
        batch = Batch(image / 255, torch.from_numpy(given["label"][i]).long(), uniform, normal)
        loss, delta = METHODS[name](net, optimizer, batch, delta)
        images = np.moveaxis(delta.numpy(), 1, -1)
        found.append({"loss": loss.item(), "delta": images, **tensors(net)})
    return {f"{name}/{k}": np.stack([step[k] for step in found]) for k in found[0]}


def golden(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The file: what is given, and what all methods find."""
    return given | {k: v for name in METHODS for k, v in run(name, given).items()}


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    np.savez_compressed(GOLDEN, **golden(problem(SEED)))
