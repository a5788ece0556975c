"""A PGD-AT step of several seeds: one compiled program called seed by seed, or vmapped over seeds.

Command:   python experiments/benchmarks/seeds.py --one-core
           --out experiments/results/seeds_one_core.json
Hardware:  one CPU core; four minutes. `--one-core` counts CPU
           seconds on one core, which a busy machine hardly changes; without it, wall seconds on
           all devices.
Claim:     on a CPU vmapping wins nothing, so `bag_of_tricks.py` calls the program seed by seed: a
           network's kernels, one per seed, turn a convolution into a grouped one.
Measured:  three seeds on one core: 3.4 times as slow vmapped (results/seeds_one_core.json).

PGD-10 adversarial training of the cpu scale's network (ResNet-8, width 8, batch 128, 32x32x3);
every seed has a state, a key and a batch of its own.
"""

from __future__ import annotations

import time

import harness
import jax
import jax.numpy as jnp
import numpy as np

from robustjax import models, parallel, training
from robustjax.attacks import PGD
from robustjax.threats import Linf
from robustjax.training.step import IN_AXES, OUT_AXES, create_state, make_step

CLASSES, SHAPE, STEPS = 10, (32, 32, 3), 390


def contenders(model: str, width: int, batch_size: int, seeds: int) -> dict:
    """The two ways: functions of nothing, each one step of all seeds."""
    module = models.create(model, num_classes=CLASSES, width=width)
    method, recipe = training.PGDAT(PGD(Linf(8 / 255))), training.Recipe(batch_size=batch_size)
    step = make_step(module, recipe, STEPS, CLASSES)
    rng, devices = np.random.default_rng(0), jax.local_device_count()
    states, keys, batches = [], [], []
    for seed in range(seeds):
        label = rng.integers(0, CLASSES, batch_size, dtype=np.int32)
        image = rng.integers(0, 256, (batch_size, *SHAPE), dtype=np.uint8)
        batch = {"image": image, "label": label, "index": np.arange(batch_size, dtype=np.int32)}
        keys.append(jax.random.key(seed))
        states.append(
            create_state(module, method, recipe, keys[-1], image, label, CLASSES, devices)
        )
        batches.append(parallel.split(batch, devices))

    one = parallel.data_parallel(step, IN_AXES, OUT_AXES)
    placed = [
        (parallel.place(state, IN_AXES[0]), key, parallel.place(batch, IN_AXES[3]))
        for state, key, batch in zip(states, keys, batches, strict=True)
    ]
    every = parallel.data_parallel(jax.vmap(step, (0, None, 0, 0)), IN_AXES, OUT_AXES)
    together = (
        parallel.place(jax.tree.map(lambda *a: jnp.stack(a), *states), IN_AXES[0]),
        jnp.stack(keys),
        parallel.place(jax.tree.map(lambda *a: np.stack(a, 1), *batches), IN_AXES[3]),
    )

    def by_seed():
        jax.block_until_ready([one(s, method, k, b)[0] for s, k, b in placed])

    def vmapped():
        state, key, batch = together
        jax.block_until_ready(every(state, method, key, batch)[0])

    return {"seed by seed": by_seed, "vmapped": vmapped}


def main() -> None:
    """Print, and write where --out says, the seconds of both and their ratio."""
    parser = harness.parser(__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet-8")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    began = time.time()
    clock = harness.start(options, options.batch)
    results = []
    for seeds in options.seeds:
        print(f"{options.model} width {options.width}, batch {options.batch}, {seeds} seeds")
        made = contenders(options.model, options.width, options.batch, seeds)
        rounds = harness.race(made, options.repeats, clock)
        ratio = min(rounds["vmapped"]) / min(rounds["seed by seed"])
        print(f"  vmapped / seed by seed = {ratio:.2f}")
        results.append({"seeds": seeds, "seconds": rounds, "ratio": ratio})
    about = {name: getattr(options, name) for name in ("model", "width", "batch")}
    harness.keep(options, began, **about, results=results)


if __name__ == "__main__":
    main()
