"""`robustjax evaluate`."""

from __future__ import annotations

import dataclasses
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
from tyro.conf import Positional, arg

from robustjax import attacks, config, data, evaluation, losses, models, report
from robustjax.cli.flags import Norm, choose_threat


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Attack a trained model on test images; report.json and figures go into its folder.

    Args:
      run: a run directory.
      attacks: names with steps and restarts, e.g. autoattack pgd-40x10 fmn-100 square-5000.
      threat: the norm; None is the one trained against.
      eps: its radius, pixels in [0, 1], e.g. 8/255; None is the one trained against.
      n: the first n test images.
      batch_size: of the attacks; None suits the device. Results do not depend on it.
      seed: of the attacks.
      weights: the best on validation, or the last.
      dtype: of the computation; None is as it was trained.
      curve: the attack that accuracy over eps is measured under (a minimum-norm attack needs one
        run for all radii, others one each); None is pgd-20, or margin-un-20 on a head of distances;
        'none' skips it.
      adaptive: attack a head of distances to class centers by 'adaptive' too, if it is not named.
      keep_images: also write adversarial.npz: under each attack's name the images (N, H, W, C).
      data_dir: the folder of prepared TFDS sets.
    """

    run: Positional[Path]
    attacks: tuple[str, ...] = ("pgd-20", "autoattack")
    threat: Norm | None = None
    eps: float | None = None
    n: int = 1000
    batch_size: int | None = None
    seed: int = 0
    weights: Literal["best", "last"] = "best"
    dtype: Literal["float32", "bfloat16"] | None = None
    curve: str | None = None
    adaptive: bool = True
    keep_images: bool = False
    data_dir: str | None = None

    def __post_init__(self):
        config.check_number("--n", self.n, 1)
        config.check_number("--batch-size", self.batch_size, 1)


def evaluate(options: Annotated[Evaluation, arg(name="")]) -> evaluation.Report:
    """Attack a trained model on test images; write a report and figures.

    A head of distances to class centers is attacked on the distances too, and the report says how
    far plain cross-entropy is blind.

    A run that was killed goes on where it was, as long as it is asked for the same.
    """
    started, run = time.time(), options.run
    logits_fn, _, settings = models.load(run, options.weights, options.dtype)
    threat = config.decode(settings["threat"], losses.NAMED)
    threat = choose_threat(options.threat, options.eps, threat)
    named = {name: attacks.parse(name, threat) for name in options.attacks}
    distances = settings["model"].get("head") in models.DISTANCE_HEADS
    named_already = any(name.startswith("adaptive") for name in named)
    if distances and options.adaptive and not named_already:
        named["adaptive"] = attacks.Adaptive(threat)
    chosen = options.curve or ("margin-un-20" if distances else "pgd-20")
    over_eps = None if chosen == "none" else attacks.parse(chosen, threat)
    test = data.load(settings["data"]["name"], "test", options.data_dir)
    if options.n > len(test):
        print(f"{test.name} has {len(test)} test images, all are evaluated (--n {options.n})")
    test = test.head(options.n)
    images = np.asarray(data.to_float(test.images))
    subject, key = (logits_fn, images, test.labels), jax.random.key(options.seed)
    tiles = {"indices": test.indices, "batch_size": options.batch_size}
    how = tiles | {"progress": True}

    def write(result: dict) -> None:
        origin = report.provenance(report.command_line(), options.seed, started)
        report.write_json(run / "report.json", result | {"provenance": origin})

    journal = run / "evaluation"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the table below has them
        found = evaluation.evaluate(*subject, named, key, journal=journal, **how)
    result = found.to_json() | {"threat": config.encode(threat), "weights": options.weights}
    result |= {"dtype": options.dtype or settings["model"].get("dtype", "float32")}
    if distances:
        blind = evaluation.zero_gradient(*subject, attacks.PGD(threat), key, **tiles)
        result |= {"cross_entropy_without_gradient": blind}
    # What took so long is kept before a figure or the curve may fail.
    write(result)
    found.save_examples(run / "examples.npz")
    if options.keep_images:
        found.save_images(run / "adversarial.npz")
    shutil.rmtree(journal, ignore_errors=True)  # there is none where nothing was attacked
    if named:
        draw_examples(found, images, list(named)[-1], settings["class_names"], run / "examples.png")
    if over_eps is not None:
        radii = [threat.eps * k / 4 for k in range(9)]
        curve = evaluation.curve(*subject, over_eps, radii, key, **how)
        write(result | {"curve": {"attack": chosen, **curve}})
        norm = type(threat).__name__.lower()
        report.accuracy_over_eps({chosen: curve}, run / "accuracy_over_eps.png", norm)
    for name, rows in result["stages"].items():
        if len(rows) > 1:
            print(f"{name}, stage by stage", report.stage_table(rows), "", sep="\n")
    if distances:
        print(
            f"the gradient of the plain cross-entropy is exactly zero at {blind:.1%} of the images "
            "that the model gets right: attacks on it are blind there\n"
        )
    print(report.table([run]))
    return found


def draw_examples(
    found: evaluation.Report,
    images: np.ndarray,
    attack: str,
    class_names: Sequence[str],
    png: Path,
    count: int = 8,
) -> None:
    """Draw images that the model gets right, as one attack left them: fooled ones first.

    There is nothing to draw where it gets none right, or where images are neither grey nor RGB.
    """
    table = found.examples
    right = np.flatnonzero(table["prediction"] == table["label"])
    rows = sorted(right, key=lambda i: not table[attack]["fooled"][i])[:count]
    if rows and images.shape[-1] in (1, 3):
        report.example_grid(
            images[rows],
            found.adversarial[attack][rows],
            table["label"][rows],
            table[attack]["prediction"][rows],
            png,
            class_names,
        )
