"""Digits as sets of points: all moved a little, a few moved far, or the critical ones dropped.

Command:   python experiments/domains/points.py
Hardware:  one core, a minute.
Claim:     a PointNet that random jitter and random dropping hardly hurt loses most of its accuracy
           to changes of the same size that its gradient chooses.
Measured:  results/domains/points.json and .png.
Source:    Xiang et al., "Generating 3D adversarial point clouds", CVPR 2019 (points moved);
           Zheng et al., "PointCloud saliency maps", ICCV 2019 (dropped). Points: pixels
           of scikit-learn's digits, drawn by their darkness, each jittered. Net: Qi et al., 2017.
"""

from pathlib import Path

import flax.linen as nn
import frame
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from robustjax import losses
from robustjax.attacks import APGD, PGD, perturb
from robustjax.evaluation import curve
from robustjax.threats import L0, Linf

POINTS, TRAIN, TEST, STEPS = 64, 1400, 128, 1500
RADII, COUNTS = (0, 0.01, 0.02, 0.03, 0.05), (0, 2, 4, 8, 16)
ROUNDS = 4  # dropping asks for the saliency again so often


def clouds(rng):
    """Sets of points (N, P, 2) in [0, 1], and their digits."""
    digits = load_digits()
    order = rng.permutation(len(digits.target))[: TRAIN + TEST]
    sets = np.empty((len(order), POINTS, 2), np.float32)
    for points, image in zip(sets, digits.images[order], strict=True):
        pixels = rng.choice(64, POINTS, p=image.ravel() / image.sum())
        rows, columns = np.divmod(pixels, 8)
        points[:] = (np.stack([columns, 7 - rows], 1) + rng.uniform(0, 1, (POINTS, 2))) / 8
    return sets, digits.target[order]


class PointNet(nn.Module):
    """Each point alone through a small network, the maximum over points, two dense layers."""

    @nn.compact
    def __call__(self, x):
        x = 4 * x - 2
        for width in (32, 64, 128):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(nn.relu(nn.Dense(64)(x.max(-2))))


def dropped(model, sets, labels, count, saliency):
    """Sets without the `count` most salient points: another point, twice, changes no maximum."""
    gone = np.zeros(sets.shape[:2], bool)
    for stage in range(1, ROUNDS + 1):
        value = np.where(gone, np.inf, saliency(sets))
        order = (-value).argsort(1)
        np.put_along_axis(gone, order[:, : count * stage // ROUNDS], True, 1)
        kept = np.take_along_axis(sets, order[:, -1:, None], 1)  # the least salient, which stays
        sets = np.where(gone[..., None], kept, sets)
    return sets


def measured(seed):
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    sets, labels = clouds(rng)
    model = frame.trained(PointNet(), key, sets[:TRAIN], labels[:TRAIN], STEPS)
    x, y = sets[TRAIN:], labels[TRAIN:]

    @jax.jit
    def moving_out(x):
        """How much the loss would grow if a point went to the middle of its set (Zheng et al.)."""
        slope = jax.grad(lambda x: jax.vmap(losses.cross_entropy)(model(x), y).sum())(x)
        return -((x - jnp.median(x, 1, keepdims=True)) * slope).sum(-1)

    def lot(x):
        return rng.uniform(size=x.shape[:2])

    def few(count):  # anywhere
        attack = PGD(L0(float(count)), 40, step_size=1.0, loss=losses.margin)
        return perturb(attack, model, key, x, y) if count else x

    def jitter(eps):
        return np.clip(x + rng.uniform(-eps, eps, x.shape).astype(np.float32), 0, 1)

    def all_of(change, sizes):
        return [frame.accuracy(model, change(size), y) for size in sizes]

    return {
        "apgd": curve(model, x, y, APGD(Linf(0.01), steps=40), list(RADII), key)["accuracy"],
        "jitter": all_of(jitter, RADII),
        "moved": all_of(few, COUNTS),
        "dropped": all_of(lambda n: dropped(model, x, y, n, moving_out), COUNTS),
        "dropped at random": all_of(lambda n: dropped(model, x, y, n, lot), COUNTS),
    }


def main() -> dict:
    return {"eps": RADII, "points": COUNTS, "accuracy": frame.over_seeds(measured)}


def draw(results: dict, png: Path) -> None:
    found = results["numbers"]["accuracy"]
    near = {"jitter": ("uniform noise", frame.RANDOM), "apgd": ("APGD", frame.ATTACK)}
    far = {
        "dropped at random": ("dropped at random", frame.RANDOM),
        "dropped": ("dropped by saliency", frame.OTHER),
        "moved": ("moved anywhere, PGD under L0", frame.ATTACK),
    }
    panels = [
        frame.Panel("All points moved", "eps (L∞; a set is 1 wide)", RADII, found, near),
        frame.Panel("A few points changed", f"points of {POINTS}", COUNTS, found, far),
    ]
    frame.curves(png, "accuracy", panels)


if __name__ == "__main__":
    frame.run(__file__, __doc__, main, draw)
