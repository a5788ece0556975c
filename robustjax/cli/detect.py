"""`robustjax detect`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from tyro.conf import Positional

import robustjax as rj
from robustjax.checks import LARGEST, check_number
from robustjax.cli.flags import AttackOptions, read
from robustjax.keys import seeded
from robustjax.writing import check_writable


@dataclasses.dataclass(frozen=True)
class DetectOptions(AttackOptions):
    """Attack a trained model guarded by detectors; write detection.json and roc.png.

    Args:
      run: a run directory.
      detectors: names with settings, e.g. lid k-density:sigma2=1/2; all: those that suit the
        network. reconstruction and divergence each train an autoencoder.
      attacks: names with steps, e.g. fgsm bim-10 cw-100; they are unaware of the detectors.
      false_rejection: the fraction of clean validation images that a threshold may reject.
      substitute: another run on the same data, whose adversarial images are tried too.
      adaptive: also attack each detector together with the classifier.
      steps: of each part of the adaptive attack, `AdaptivePGD`.
      fit: fit the detectors to at most so many training images, drawn at random.
    """

    run: Positional[Path]
    detectors: tuple[str, ...] = ("confidence", "non-me", "k-density")
    attacks: tuple[str, ...] = ("fgsm", "bim-10", "pgd-20")
    false_rejection: float = 0.05
    substitute: Path | None = None
    adaptive: bool = True
    steps: int = 100
    fit: int = 10_000

    def __post_init__(self):
        super().__post_init__()
        check_number("--false-rejection", self.false_rejection, 0, 1)
        check_number("--steps", self.steps, 1, LARGEST)
        check_number("--fit", self.fit, 1, LARGEST)
        if not self.attacks:
            raise ValueError("--attacks needs a name at least, such as pgd-20")


def command(words: Sequence[str]) -> None:
    """`robustjax detect` with these words."""
    options = read(DetectOptions, "detect", words)
    rj.parallel.use_all_cores()
    detect(options)


def detect(options: DetectOptions) -> rj.evaluation.DetectionReport:
    """Fit detectors and measure attacks that are aware of them and attacks that are not."""
    started, run = time.time(), options.run
    logits_fn, settings = options.load(run)
    threat = options.threat_of(settings)
    named = {name: rj.attacks.parse(name, threat) for name in options.attacks}
    chosen = chosen_detectors(options, settings, logits_fn.func.model)
    substitutes = {}
    if options.substitute is not None and options.substitute.resolve() == options.run.resolve():
        raise ValueError(f"--substitute must be another run than {options.run}")
    if options.substitute is not None:
        substitutes = {
            options.substitute.name: substitute_of(options, options.substitute, settings)
        }
    for name in ("detection.json", "roc.png"):
        check_writable(run / name)
    train, validation, test = (
        rj.data.load(settings["data"]["name"], split, options.data_dir)
        for split in ("train", "validation", "test")
    )
    test = test.head(options.n)
    drawn = np.random.default_rng(options.seed).permutation(len(train))[: options.fit]
    train = train.take(np.sort(drawn))
    layers, size = rj.models.with_layers(logits_fn), options.batch_size
    fitted = {}
    for name, detector in chosen.items():
        drawn = isinstance(detector, rj.detection.Uncertainty)
        watched = rj.attacks.Randomized(rj.models.with_dropout(logits_fn)) if drawn else layers
        fitted[name] = detector.fit(watched, train.images, train.labels, batch_size=size)
    found = rj.evaluation.detect(
        logits_fn,
        fitted,
        test.images,
        test.labels,
        validation.images,
        named,
        seeded(options.seed),
        false_rejection=options.false_rejection,
        substitutes=substitutes,
        white_box=rj.detection.AdaptivePGD(threat, options.steps) if options.adaptive else None,
        indices=test.indices,
        progress=True,
        batch_size=size,
    )
    result = found.to_json() | {
        "data": {"name": test.name, "split": test.split},
        "detectors": {name: rj.config.encode(detector) for name, detector in chosen.items()},
        "false_rejection": options.false_rejection,
        "fitted_to": len(train),
        "threat": rj.config.encode(threat),
        "weights": options.weights,
        "provenance": rj.report.provenance(rj.report.command_line(), options.seed, started),
    }
    print("AUC / accepted and wrong, in %")
    print(rj.report.detection_table(result))
    rj.report.write_json(run / "detection.json", result)
    rj.report.roc_curves(found.curves, run / "roc.png")
    return found


def chosen_detectors(
    options: DetectOptions, settings: dict, network: rj.models.Network
) -> dict[str, rj.detection.Detector]:
    """The named detectors, or all that suit the run's network.

    Raises:
      ValueError: an unknown detector, or one that the network does not support.
    """
    random = rj.models.is_random(network, tuple(settings["image_shape"]))
    known, has = rj.detection.DETECTORS, settings["model"] | {"dropout": random}
    lacking = {name: how for name, (part, how) in rj.detection.NEEDS.items() if not has.get(part)}
    if options.detectors == ("all",):
        return {name: detector for name, detector in known.items() if name not in lacking}
    for name in options.detectors:
        if how := lacking.get(name.split(":")[0]):
            raise ValueError(f"{name} needs a network trained {how}, but {options.run} was not")
    return {name: rj.detection.parse(name) for name in options.detectors}


def substitute_of(options: DetectOptions, run: Path, settings: dict) -> jax.tree_util.Partial:
    """The other run's classifier.

    Raises:
      ValueError: it was trained on other data.
    """
    other, about = options.load(run)
    names = settings["data"]["name"], about["data"]["name"]
    if len(set(names)) > 1:
        raise ValueError(f"the runs were trained on different data: {', '.join(sorted(names))}")
    return other
