"""Every training step and every attack compiles for TPUs: v5e, v6e and v5p, four chips of each.

    JAX_PLATFORMS=cpu python experiments/scale/compile_everything.py

Hardware: one CPU core and libtpu; ten minutes.

The networks are tiny and nothing runs; the TPU's own compiler needs no TPU. Methods, and stages of
attacks, that differ in numbers alone share a program, and are compiled under the first of their
names. Rows already in results/compile_everything.json are kept.
"""

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Iterator

import jax
import numpy as np
import rows

from robustjax import attacks, config, data, files, models, threats, training
from robustjax.scale import slice_of
from robustjax.scale.evaluation import leaves, stages
from robustjax.scale.training import Job
from robustjax.typing import Attack

RESULT = rows.RESULTS / "compile_everything.json"
SLICES = ("v6e:2x2", "v5p:2x2x1", "v5e:2x2")
SHAPE, CLASSES = (8, 8, 3), 10
MODEL = {"name": "cnn", "width": 2}


def blank() -> data.Dataset:
    images, labels = np.zeros((64, *SHAPE), np.uint8), np.arange(64, dtype=np.int32) % CLASSES
    return data.Dataset(images, labels, np.arange(64), "blank", "train", CLASSES)


def helper(folder: pathlib.Path) -> str:
    """A run for HAT, whose helper is one."""
    about = MODEL | {"num_classes": CLASSES}
    variables = models.init(models.create(**about), jax.random.key(0), SHAPE)
    settings = {
        "model": about,
        "image_shape": SHAPE,
        "data": {"name": "blank"},
        "threat": config.encode(threats.Linf()),
        "class_names": [],
    }
    files.write_json(folder / "config.json", settings)
    models.save_weights(folder / "weights.npz", variables)
    return str(folder)


def methods(folder: pathlib.Path) -> Iterator[tuple[str, training.Method]]:
    """A method of each program."""
    seen = set()
    for name in training.CATALOGUE:
        method = training.card(name).method
        if isinstance(method, training.HAT):
            method = dataclasses.replace(method, helper=helper(folder))
        if isinstance(method, training.LBGAT):
            method = dataclasses.replace(method, teacher="cnn")
        if (kind := jax.tree.structure(method)) not in seen:
            seen.add(kind)
            yield name, method
    yield "awp(trades)", training.AWP(training.TRADES())


def parts() -> Iterator[tuple[str, Attack]]:
    """A stage of each program of an attack."""
    seen = set()
    for name, row in attacks.ATTACKS.items():
        threat = next(t for t in threats.THREATS.values() if isinstance(t, row.threats))
        for i, stage in enumerate(leaves(attacks.parse(name, threat), CLASSES)):
            if (kind := jax.tree.structure(stage)) not in seen:
                seen.add(kind)
                yield f"{name} {i + 1}: {type(stage).__name__}", stage


def step(method: training.Method, topology: str) -> dict:
    """What the compiler makes of a method's step."""
    augment = data.Augment(pad=0, flip=False)  # it costs a third of a small step's compilation
    recipe = training.Recipe(batch_size=32, augment=augment)
    residual = {"name": "wrn-10-1"} if "adaptive_norm" in method.model else {}
    job = Job(method, recipe, MODEL | residual, blank(), slice_of(topology))
    program, params = job.compile(), job.state().params
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    reduced = [c for c in program.collectives if c.opcode == "all-reduce"]
    return {
        "kib": program.memory.total // 2**10,
        "all_reduces": sum(c.times for c in reduced),
        "of_all_gradients": sum(c.times for c in reduced if c.bytes >= size),
        "loops_counted_once": len(program.unknown),
    }


def tile(attack: Attack, topology: str) -> dict:
    """What the compiler makes of an attack's steps."""
    network = models.network(MODEL, CLASSES)
    variables = jax.eval_shape(lambda: models.init(network, jax.random.key(0), SHAPE))
    devices = slice_of(topology).devices
    (found,) = stages(attack, network, variables, SHAPE, CLASSES, devices, tile=8)
    return {"kib": found.program.memory.total // 2**10, "steps": found.steps}


def main() -> None:
    rows.start(RESULT, rows.parser(__doc__).parse_args())
    with tempfile.TemporaryDirectory() as folder:
        programs = [(f"step of {n}", step, m) for n, m in methods(pathlib.Path(folder))]
        programs += [(f"attack {n}", tile, a) for n, a in parts()]
        for topology in SLICES:
            for name, compile_, what in programs:
                rows.add(
                    RESULT, f"{name} on {topology}", functools.partial(compile_, what, topology)
                )
    print(f"{len(rows.load(RESULT))} compilations of {len(programs)} programs")


if __name__ == "__main__":
    main()
