"""`robustjax transfer`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Literal

import jax
from tyro.conf import Positional, arg

from robustjax import attacks, config, data, evaluation, losses, models, report
from robustjax.cli.flags import Norm, choose_threat


@dataclasses.dataclass(frozen=True)
class Transferring:
    """Attack every run with the images crafted on every other one.

    Args:
      runs: two run directories or more, trained on the same data.
      attack: a name with steps and restarts, e.g. mi-fgsm-10, dim-10, si-ni-fgsm.
      threat: the norm; None is the one that the first run was trained against.
      eps: its radius, pixels in [0, 1], e.g. 8/255; None is that of the first run.
      n: the first n test images.
      batch_size: of the attack; None suits the device. Results do not depend on it.
      seed: of the attack.
      weights: the best on validation, or the last.
      out: a JSON file for the result.
      data_dir: the folder of prepared TFDS sets.
    """

    runs: Positional[tuple[Path, ...]]
    attack: str = "mi-fgsm-10"
    threat: Norm | None = None
    eps: float | None = None
    n: int = 1000
    batch_size: int | None = None
    seed: int = 0
    weights: Literal["best", "last"] = "best"
    out: Path | None = None
    data_dir: str | None = None

    def __post_init__(self):
        config.check_number("--n", self.n, 1)
        config.check_number("--batch-size", self.batch_size, 1)


def transfer(options: Annotated[Transferring, arg(name="")]) -> evaluation.Transfer:
    """Craft on each run, judge on all: the success rate among images that both have right."""
    started, names = time.time(), [run.name for run in options.runs]
    if len(set(names)) < max(2, len(names)):
        raise ValueError(
            "name two run directories or more, each with a name of its own: "
            "robustjax transfer RUN RUN"
        )
    loaded = [models.load(run, weights=options.weights) for run in options.runs]
    settings = [about for _, _, about in loaded]
    sets = {about["data"]["name"] for about in settings}
    if len(sets) > 1:
        raise ValueError(f"the runs were trained on different data: {', '.join(sorted(sets))}")
    threat = config.decode(settings[0]["threat"], losses.NAMED)
    threat = choose_threat(options.threat, options.eps, threat)
    test = data.load(sets.pop(), "test", options.data_dir).head(options.n)
    networks = {name: logits_fn for name, (logits_fn, _, _) in zip(names, loaded, strict=True)}
    found = evaluation.transfer(
        attacks.parse(options.attack, threat),
        networks,
        networks,
        test.images,
        test.labels,
        jax.random.key(options.seed),
        indices=test.indices,
        batch_size=options.batch_size,
        progress=True,
    )
    if options.out is not None:
        origin = report.provenance(report.command_line(), options.seed, started)
        report.write_json(options.out, found.to_json() | {"provenance": origin})
    print(f"success of {options.attack} in % among images that both models have right")
    print(report.transfer_table(found.to_json()))
    return found
