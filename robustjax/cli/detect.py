"""`robustjax detect`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
from tyro.conf import Positional, arg

from robustjax import attacks, config, data, detection, evaluation, losses, models, report
from robustjax.cli.flags import Norm, choose_threat


@dataclasses.dataclass(frozen=True)
class Detecting:
    """Attack a trained model that detectors watch; detection.json and roc.png go into its folder.

    Args:
      run: a run directory.
      detectors: names, with numbers where others are wanted, e.g. k-density:sigma2=1/2:count=100,
        or all that suit the network; reconstruction and divergence train an autoencoder each.
      attacks: names with steps, e.g. fgsm bim-10 cw-100; they do not know of the detectors.
      threat: the norm; None is the one trained against.
      eps: its radius, pixels in [0, 1], e.g. 8/255; None is the one trained against.
      false_rejection: the fraction of clean validation images that a threshold may reject.
      substitute: another run on the same data: its images are tried on this one, too.
      adaptive: also attack each detector together with the classifier.
      steps: of that attack: `JointPGD` under each of its constraints.
      n: the first n test images.
      fit: detectors are fitted to this many training images at most, drawn at random.
      batch_size: of the attacks; None suits the device. Results do not depend on it.
      seed: of the attacks.
      weights: the best on validation, or the last.
      data_dir: the folder of prepared TFDS sets.
    """

    run: Positional[Path]
    detectors: tuple[str, ...] = ("confidence", "non-me", "k-density")
    attacks: tuple[str, ...] = ("fgsm", "bim-10", "pgd-20")
    threat: Norm | None = None
    eps: float | None = None
    false_rejection: float = 0.05
    substitute: Path | None = None
    adaptive: bool = True
    steps: int = 100
    n: int = 1000
    fit: int = 10_000
    batch_size: int | None = None
    seed: int = 0
    weights: Literal["best", "last"] = "best"
    data_dir: str | None = None

    def __post_init__(self):
        config.check_number("--false-rejection", self.false_rejection, 0, 1)
        for name in ("steps", "n", "fit", "batch_size"):
            config.check_number(f"--{name.replace('_', '-')}", getattr(self, name), 1)


def detect(options: Annotated[Detecting, arg(name="")]) -> evaluation.DetectionReport:
    """Threshold detectors on clean images; what attacks get past them, knowing of them or not."""
    started, run = time.time(), options.run
    logits_fn, _, settings = models.load(run, weights=options.weights)
    threat = config.decode(settings["threat"], losses.NAMED)
    threat = choose_threat(options.threat, options.eps, threat)
    named = {name: attacks.parse(name, threat) for name in options.attacks}
    chosen = chosen_detectors(options, settings)
    substitutes = {}
    if options.substitute is not None:
        substitutes = {options.substitute.name: substitute_of(options, settings)}
    train, validation, test = (
        data.load(settings["data"]["name"], split, options.data_dir)
        for split in ("train", "validation", "test")
    )
    test = test.head(options.n)
    drawn = np.random.default_rng(options.seed).permutation(len(train))[: options.fit]
    train = train.take(np.sort(drawn))
    layers, how = models.with_layers(logits_fn), {"batch_size": options.batch_size}
    fitted = {}
    for name, detector in chosen.items():
        drawn = isinstance(detector, detection.Uncertainty)
        watched = attacks.Randomized(models.with_dropout(logits_fn)) if drawn else layers
        fitted[name] = detector.fit(watched, train.images, train.labels, **how)
    found = evaluation.detect(
        logits_fn,
        fitted,
        test.images,
        test.labels,
        validation.images,
        named,
        jax.random.key(options.seed),
        false_rejection=options.false_rejection,
        substitutes=substitutes,
        white_box=detection.AdaptivePGD(threat, options.steps) if options.adaptive else None,
        indices=test.indices,
        progress=True,
        **how,
    )
    result = found.to_json() | {
        "detectors": {name: config.encode(detector) for name, detector in chosen.items()},
        "false_rejection": options.false_rejection,
        "fitted_to": len(train),
        "threat": config.encode(threat),
        "weights": options.weights,
        "provenance": report.provenance(report.command_line(), options.seed, started),
    }
    report.write_json(run / "detection.json", result)
    report.roc_curves(found.curves, run / "roc.png")
    print("AUC / accepted and wrong, in %")
    print(report.detection_table(result))
    return found


def chosen_detectors(options: Detecting, settings: dict) -> dict[str, detection.Detector]:
    """The detectors that were named, or all that suit the run's network.

    Raises:
      ValueError: an unknown one, or one that needs what the network does not have.
    """
    known, has = detection.DETECTORS, settings["model"]
    lacking = {name: how for name, (part, how) in detection.NEEDS.items() if not has.get(part)}
    if options.detectors == ("all",):
        return {name: detector for name, detector in known.items() if name not in lacking}
    for name in options.detectors:
        if how := lacking.get(name.split(":")[0]):
            raise ValueError(f"{name} needs a network trained {how}, and {options.run} is not")
    return {name: detection.parse(name) for name in options.detectors}


def substitute_of(options: Detecting, settings: dict) -> jax.tree_util.Partial:
    """The other run's classifier.

    Raises:
      ValueError: it was trained on other data.
    """
    other, _, about = models.load(options.substitute, weights=options.weights)
    names = settings["data"]["name"], about["data"]["name"]
    if len(set(names)) > 1:
        raise ValueError(f"the runs were trained on different data: {', '.join(sorted(names))}")
    return other
