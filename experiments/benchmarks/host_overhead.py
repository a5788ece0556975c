"""Steps per second of `fit` against a bare loop over the compiled step that does nothing else.

Command:   python experiments/benchmarks/host_overhead.py \\
               --out experiments/results/host_overhead.json
Hardware:  one CPU device; a minute or two.
Claim:     within an epoch `fit` makes about as many steps as the bare loops, and with validation
           and a checkpoint after every 22 steps at least 0.8 of them where a step takes 2 ms
           (PGD-AT); where it takes 0.15 ms (natural), as many as bare calls, but not 0.8 of the
           compiled loop.
Measured:  experiments/results/host_overhead.json, on two idle cores: 0.93 (natural) and 1.17
           (PGD-AT) within an epoch; with epochs of 22 steps 0.58 and 0.87 of the faster bare loop,
           0.96 and 0.93 of bare calls.

The digits, a cnn of width 4 whose step takes less than a millisecond, so that the host is what
costs. The bare loops step on one batch that is on the device: by calls of the compiled step, and
by one compiled loop over it, `lax.fori_loop`; `fit` is compared with the faster one. It is timed
by its own rows in metrics.jsonl, between the ends of two epochs (with validation on 143 images by
clean accuracy, a checkpoint and, where it is the best, weights), or inside one long epoch.
All of them take turns; the best round of each counts, since other work disturbs all but that.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from pathlib import Path

import harness
import jax
import numpy as np

from robustjax import data, files, models, parallel
from robustjax.attacks import PGD
from robustjax.threats import Linf
from robustjax.training import PGDAT, Natural, Recipe, fit
from robustjax.training.placement import REPLICATED
from robustjax.training.state import AXES
from robustjax.training.step import create_state, make_step, program

MODEL = {"name": "cnn", "width": 4}
RECIPE = Recipe(batch_size=58, lr=0.05, augment=data.Augment(pad=0, flip=False))
METHODS = {
    "natural": (Natural(), 4_400),
    "PGD-AT": (PGDAT(PGD(Linf(0.1), steps=10)), 880),
}
"""Method, and steps in a round."""


def bare(method, steps, train, compiled):
    """A function that makes so many steps on one batch; steps per second."""
    module, devices = models.network(MODEL, train.num_classes), jax.device_count()
    key, classes = jax.random.key(0), train.num_classes
    state = REPLICATED.put(
        create_state(module, method, RECIPE, key, train.images, train.labels, classes, devices)
    )
    call, given = program(module, steps, classes), parallel.place(RECIPE, None)
    batch = data.Plan(train, RECIPE.batch_size, 0).batch(0)
    batch = parallel.place(parallel.split(batch, devices), 0)

    def loop(state, method, recipe, key, batch):
        step = make_step(module, recipe, steps, classes)
        run = lambda _, state: step(state, method, key, batch)[0]  # noqa: E731
        return jax.lax.fori_loop(0, steps, run, state)

    axes = (AXES, None, None, None, 0)
    whole = parallel.data_parallel(loop, axes, AXES, donate_argnums=0)

    def run():
        nonlocal state
        began = time.perf_counter()
        if compiled:
            state = whole(state, method, given, key, batch)
        else:
            for _ in range(steps):
                state, _ = call(state, method, given, key, batch)
        jax.block_until_ready(state)
        return steps / (time.perf_counter() - began)

    return run


class Memory:
    """Notes the megabytes of the process after each epoch."""

    def __init__(self):
        self.megabytes = []

    def open(self, out, config, rows):
        pass

    def log(self, row):
        if row["split"] == "validation":
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.megabytes.append(round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1))

    def close(self):
        pass


def fitted(method, steps, train, validation, epochs, memory):
    """A function that trains; steps per second after the first tenth, which compiles."""
    recipe = dataclasses.replace(RECIPE, epochs=epochs)

    def run():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            fit(
                method,
                train,
                validation,
                model=MODEL,
                out=out,
                recipe=recipe,
                loggers=[memory],
                progress=False,
            )
            rows = files.read_metrics(out / "metrics.jsonl")
        # Rows of one span have one time, that of its end.
        ends = {row["seconds"]: row["step"] for row in rows if row["split"] == "train"}
        first = next(seconds for seconds, step in ends.items() if step >= steps // 10)
        last = max(ends)
        return (ends[last] - ends[first]) / (last - first)

    return run


def main():
    parser = harness.parser(__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    began = time.time()
    harness.start(options, batch_size=1)  # one device
    train, validation = (data.load("digits", split) for split in ("train", "validation"))
    epoch = data.steps_per_epoch(len(train), RECIPE.batch_size)
    results = {}
    for name, (method, steps) in METHODS.items():
        rows = np.arange(steps * RECIPE.batch_size) % len(train)
        memory = Memory()
        contenders = {
            "bare calls": bare(method, steps, train, compiled=False),
            "bare loop": bare(method, steps, train, compiled=True),
            "fit, one epoch": fitted(method, steps, train.take(rows), validation, 1, Memory()),
            "fit, epochs": fitted(method, steps, train, validation, steps // epoch, memory),
        }
        rates = {contender: [] for contender in contenders}
        for _ in range(options.repeats):
            for contender, run in contenders.items():
                rates[contender].append(run())
        best = {contender: max(found) for contender, found in rates.items()}
        reference = max(best["bare calls"], best["bare loop"])
        share = {contender: rate / reference for contender, rate in best.items()}
        epochs = memory.megabytes[-(steps // epoch) :]  # of the last round
        results[name] = {
            "steps": steps,
            "steps_per_second": rates,
            "share_of_bare": share,
            "megabytes": {"epochs": len(epochs), "at a fifth": epochs[len(epochs) // 5]},
        }
        results[name]["megabytes"]["at the end"] = epochs[-1]
        for contender, rate in best.items():
            print(f"{name:8s} {contender:15s} {rate:8.0f} steps/s   {share[contender]:.2f}")
    harness.keep(options, began, steps_per_epoch=epoch, results=results)


if __name__ == "__main__":
    main()
