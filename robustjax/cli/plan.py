"""`robustjax plan METHOD`: a `train` command, planned instead of run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np

import robustjax as rj
from robustjax.cli.train import TrainOptions, chosen, help_text, network, parsed
from robustjax.scale.forecast import Forecast


@dataclasses.dataclass(frozen=True)
class PlanOptions(TrainOptions):
    """The flags of `train`, and those of the plan. Nothing is trained, and OUT is not written.

    Args:
      topology: a TPU slice, e.g. v4:2x2x2, v5e:16x16, v5p:4x4x4, v6e:8x8; None: the devices at
        hand.
      image_shape: height, width and channels to plan for, instead of the images of --data;
        --examples is then their number, 50,000 by default.
      classes: their number, with --image-shape.
      attacks: also plan an evaluation by these, e.g. autoattack pgd-40x10.
      n: the number of images that it attacks.
      quick: compile once: no largest batch, and nothing that would save memory.
      json: a file for all numbers.
    """

    GROUPS: ClassVar = {
        "machine": ("topology", "batch-size", "accumulate", "shard-state", "remat", "dtype"),
        "images and network": ("data", "image-shape", "examples", "model"),
        "work": ("epochs", "eps", "attack.steps", "attacks", "n"),
        "plan": ("quick", "json"),
    }

    out: Path | None = None  # type: ignore[assignment]
    topology: str | None = None
    image_shape: tuple[int, int, int] | None = None
    classes: int = 10
    attacks: tuple[str, ...] = ()
    n: int = 10_000
    quick: bool = False
    json: Path | None = None

    def __post_init__(self):
        super().__post_init__()
        rj.checks.check_number("--classes", self.classes, 2, rj.checks.LARGEST)
        rj.checks.check_number("--n", self.n, 1, rj.checks.LARGEST)


def command(words: Sequence[str]) -> None:
    """`robustjax plan` with these words."""
    if words and words[0] in ("-h", "--help"):
        print(help_text("plan METHOD --topology SLICE ...", "Plan a run of `train` on TPUs"))
        return
    run = parsed(words, "plan", options=PlanOptions)
    found = plan(run.method, run.recipe, run.options)
    print(rj.scale.page(found))
    if run.options.json is not None:
        rj.report.write_json(run.options.json, found.to_json())
    if not found.fits:
        sys.exit(1)


def plan(method: rj.training.Method, recipe: rj.training.Recipe, options: PlanOptions) -> Forecast:
    """What a run takes, by its flags."""
    if options.topology is None:
        rj.parallel.use_all_cores(recipe.batch_size // recipe.accumulate)
    else:
        jax.config.update("jax_platforms", "cpu")  # libtpu compiles; nothing runs on it
    train_set = blank(options) if options.image_shape else loaded(options)
    extra = None
    if options.extra is not None:
        extra = rj.data.load_extra(options.extra, train_set.num_classes)
    method, recipe, threat = chosen(method, recipe, options, train_set.image_shape)
    channels = train_set.image_shape[-1]
    half = (0.5,) * channels if options.normalize else None
    return rj.scale.plan(
        method,
        train_set,
        model=network(options) | {"mean": half, "std": half},
        recipe=recipe,
        topology=options.topology,
        extra=extra,
        attacks={name: rj.attacks.parse(name, threat) for name in options.attacks},
        images=options.n,
        shard_state=options.shard_state,
        alternatives=not options.quick,
    )


def loaded(options: PlanOptions) -> rj.data.Dataset:
    """The training set of --data."""
    found = rj.data.load(options.data, "train", options.data_dir)
    return found if options.examples is None else found.head(options.examples)


def blank(options: PlanOptions) -> rj.data.Dataset:
    """Images of --image-shape, which take no memory."""
    n = options.examples or 50_000
    assert options.image_shape is not None
    images = np.broadcast_to(np.uint8(0), (n, *options.image_shape))
    labels = np.zeros(n, np.int32)
    return rj.data.Dataset(images, labels, np.arange(n), "blank", "train", options.classes)
