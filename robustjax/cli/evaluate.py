"""`robustjax evaluate`."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from tyro.conf import Positional

import robustjax as rj
from robustjax.cli.flags import AttackOptions, read


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(AttackOptions):
    """Attack a trained model on test images; write a report and figures.

    The run's folder then holds report.json, examples.npz and up to three figures.

    Args:
      run: a run directory.
      attacks: names with steps and restarts, e.g. autoattack pgd-40x10 fmn-100 square-5000.
      dtype: of the computation; None: as in training.
      curve: the attack for the curve of accuracy over eps (a minimum-norm attack runs once for all
        radii, others once per radius); None: pgd-20, or margin-un-20 for a distance head; 'none'
        skips the curve.
      adaptive: add the attack 'adaptive' for a distance head, unless it is named already.
      keep_images: also write adversarial.npz with each attack's images (N, H, W, C).
    """

    run: Positional[Path]
    attacks: tuple[str, ...] = ("pgd-20", "autoattack")
    dtype: Literal["float32", "bfloat16"] | None = None
    curve: str | None = None
    adaptive: bool = True
    keep_images: bool = False


def command(words: Sequence[str]) -> None:
    """`robustjax evaluate` with these words."""
    options = read(EvaluateOptions, "evaluate", words)
    rj.parallel.use_all_cores()
    evaluate(options)


def evaluate(options: EvaluateOptions) -> rj.evaluation.Report:
    """Attack a trained model on test images; write a report and figures.

    For a head that decides by distances to class centers, the distances are attacked as well, and
    the report has the fraction of images on which the plain cross-entropy has no gradient.

    After an interruption, the same command resumes.
    """
    started, run = time.time(), options.run
    logits_fn, settings = options.load(run, options.dtype)
    threat = options.threat_of(settings)
    named = {name: rj.attacks.parse(name, threat) for name in options.attacks}
    distances = settings["model"].get("head") in rj.models.DISTANCE_HEADS
    named_already = any(name.startswith("adaptive") for name in named)
    if distances and options.adaptive and not named_already:
        named["adaptive"] = rj.attacks.Adaptive(threat)
    chosen = options.curve or ("margin-un-20" if distances else "pgd-20")
    over_eps = None if chosen == "none" else rj.attacks.parse(chosen, threat)
    test = rj.data.load(settings["data"]["name"], "test", options.data_dir)
    if options.n > len(test):
        print(f"{test.name} has only {len(test)} test images; --n {options.n} evaluates them all")
    test = test.head(options.n)
    images = np.asarray(rj.data.to_float(test.images))
    subject, key = (logits_fn, images, test.labels), jax.random.key(options.seed)
    tiles: dict[str, Any] = {"indices": test.indices, "batch_size": options.batch_size}
    how: dict[str, Any] = tiles | {"progress": True}

    def write(result: dict) -> None:
        origin = rj.report.provenance(rj.report.command_line(), options.seed, started)
        rj.report.write_json(run / "report.json", result | {"provenance": origin})

    journal = rj.evaluation.Journal(run / "evaluation")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the table below shows them
        found = rj.evaluation.evaluate(*subject, named, key, threat=threat, journal=journal, **how)
    result = found.to_json() | {"threat": rj.config.encode(threat), "weights": options.weights}
    result |= {"dtype": options.dtype or settings["model"].get("dtype", "float32")}
    if distances:
        blind = rj.evaluation.zero_gradient(*subject, rj.attacks.PGD(threat), key, **tiles)
        result |= {"cross_entropy_without_gradient": blind}
    write(result)  # before the curve or a figure can fail
    found.save_examples(run / "examples.npz")
    if options.keep_images:
        found.save_images(run / "adversarial.npz")
    journal.clear()
    if named:
        draw_examples(found, images, list(named)[-1], settings["class_names"], run / "examples.png")
    if over_eps is not None:
        radii = radii_around(threat)
        curve = rj.evaluation.curve(*subject, over_eps, radii, key, **how)
        write(result | {"curve": {"attack": chosen, **curve}})
        norm = type(threat).__name__
        rj.report.accuracy_over_eps({chosen: curve}, run / "accuracy_over_eps.png", norm)
    for name, rows in result["stages"].items():
        if len(rows) > 1:
            print(f"{name}, stage by stage", rj.report.stage_table(rows), "", sep="\n")
    if distances:
        print(
            f"the gradient of the plain cross-entropy is exactly zero on {blind:.1%} of the "
            "correctly classified images: attacks on it are blind there\n"
        )
    print(rj.report.table([run]))
    return found


def radii_around(threat: rj.typing.Threat) -> list[float]:
    """Radii from 0 to twice the threat's radius; whole numbers of pixels in L0."""
    radii = [float(rj.threats.radius(threat)) * k / 4 for k in range(9)]
    return sorted({float(int(r)) for r in radii}) if isinstance(threat, rj.threats.L0) else radii


def draw_examples(
    found: rj.evaluation.Report,
    images: np.ndarray,
    attack: str,
    class_names: Sequence[str],
    png: Path,
    count: int = 8,
) -> None:
    """Draw correctly classified images beside one attack's versions, successful attacks first.

    Nothing is drawn if no image is classified correctly, or if images are neither grey nor RGB.
    """
    table = found.examples
    right = np.flatnonzero(table["prediction"] == table["label"])
    rows = sorted(right, key=lambda i: not table[attack]["fooled"][i])[:count]
    if rows and images.shape[-1] in (1, 3):
        rj.report.example_grid(
            images[rows],
            found.adversarial[attack][rows],
            table["label"][rows],
            table[attack]["prediction"][rows],
            png,
            class_names,
        )
