"""A PGD-AT step in a loop of one's own on the CPU, under jit: three ways to convolve.

Command:   python experiments/benchmarks/under_jit.py --one-core
           --out experiments/results/under_jit_one_core.json
Hardware:  one CPU core; a minute and a half. `--one-core` counts CPU
           seconds on one core, which a busy machine hardly changes; without it, wall seconds on
           all devices.
Claim:     with `nn.Conv` a step costs a multiple of one with `models.conv2d`, and with
           `models.with_fast_convolutions` around the network as much: docs/how_to/own_loop.md.
Measured:  on one core 2.7 times, and 1.1 (results/under_jit_one_core.json); as much where
           `perturb` crafts the images outside of the step.

Four convolutions, batch 64, 32x32x3, ten steps of PGD, random weights and images.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import flax.linen as nn
import harness
import jax
import numpy as np

from robustjax import losses, models
from robustjax.attacks import PGD, perturb
from robustjax.threats import Linf

PGD_10 = PGD(Linf(8 / 255), steps=10)


class Net(nn.Module):
    """The convolutions are `models.conv2d`, or `nn.Conv`."""

    ours: bool

    @nn.compact
    def __call__(self, x):
        for i, (channels, stride) in enumerate(((32, 1), (64, 2), (64, 1), (64, 2))):
            if self.ours:
                shape = (3, 3, x.shape[-1], channels)
                x = models.conv2d(
                    x, self.param(f"conv{i}", nn.initializers.he_normal(), shape), stride
                )
            else:
                x = nn.Conv(channels, (3, 3), stride, padding=1, use_bias=False)(x)
            x = nn.relu(x)
        return nn.Dense(10)(x.reshape(len(x), -1))


def contenders() -> dict:
    """Every way to make one step, as a function of nothing."""
    rng, key = np.random.default_rng(0), jax.random.key(0)
    x, y = rng.uniform(size=(64, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, 64)

    def step(net: Net, apply: Callable, by_perturb: bool = False) -> Callable:
        params = net.init(key, x[:1])

        @jax.jit
        def descend(params, x, y):
            def loss(params):
                return jax.vmap(losses.cross_entropy)(apply(params, x), y).mean()

            return jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(loss)(params))

        @jax.jit
        def under_jit(params, key, x, y):
            attack = functools.partial(PGD_10, lambda image: apply(params, image[None])[0])
            return descend(params, jax.vmap(attack)(jax.random.split(key, len(x)), x, y), y)

        def crafted(params, key, x, y):
            model = jax.tree_util.Partial(apply, params)
            return descend(params, perturb(PGD_10, model, key, x, y), y)

        made = crafted if by_perturb else under_jit
        return lambda: jax.block_until_ready(made(params, key, x, y))

    theirs, ours = Net(ours=False), Net(ours=True)
    return {
        "conv2d": step(ours, ours.apply),
        "nn.Conv": step(theirs, theirs.apply),
        "nn.Conv, with_fast_convolutions": step(
            theirs, models.with_fast_convolutions(theirs.apply)
        ),
        "nn.Conv, crafted by perturb": step(theirs, theirs.apply, by_perturb=True),
    }


def main():
    parser = harness.parser(__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options, began = parser.parse_args(), time.time()
    clock = harness.start(options)
    rounds = harness.race(contenders(), options.repeats, clock)
    best = {name: min(seconds) for name, seconds in rounds.items()}
    ratios = {name: seconds / best["conv2d"] for name, seconds in best.items()}
    for name, ratio in ratios.items():
        print(f"{name:34s} {ratio:.2f} of conv2d")
    harness.keep(options, began, seconds=rounds, ratios=ratios)


if __name__ == "__main__":
    main()
