"""One data set at one scale: train, attack and watch.

Every phase of a net leaves a JSON file in its run directory and is not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from runner import once, slug, trained

from rce import feature_geometry, nets
from robustjax import attacks, config, data, detection, evaluation, files
from robustjax.attacks import (
    BIM,
    FGSM,
    ILCM,
    JSMA,
    PGD,
    CarliniWagnerL2,
)
from robustjax.attacks.targets import Random
from robustjax.threats import L0, Linf

NETS = {"CE": "natural", "RCE": "rce"}
SIGMA2 = {"CE": 1 / 0.26, "RCE": 0.1 / 0.26}
CARDS = {  # of grey images and of coloured ones, as in the authors' code for MNIST and CIFAR
    True: "--augment none --schedule piecewise:boundaries=1/2,3/4",
    False: "--augment zero-crop-flip --schedule piecewise:boundaries=4/9,6/9,8/9",
}
CARD = "--batch-size 128 --optimizer.weight-decay 2e-4 --optimizer.decay kernels"
OBLIVIOUS = ("gradient", "jsma", "cw")
PHASES = ("train", "clean", *OBLIVIOUS, "wb", "geometry", "joint")


@dataclasses.dataclass(frozen=True)
class Scale:
    """The amount of work at one scale.

    Attributes:
      model: flags of every training.
      epochs: for grey images and for coloured ones.
      lr: of CE and of RCE.
      fit: training images that detectors are fitted to, the first ones.
      n: test images, the first ones, by phase.
      radii: eps of the gradient attacks.
      cw: rounds and steps of C&W.
      wb: of C&W-wb.
      joint: detectors that are attacked together with the net.
      joint_radii: eps of these attacks, some of `radii`.
    """

    model: str
    epochs: tuple[int, int]
    lr: tuple[float, float]
    fit: int
    n: dict[str, int]
    radii: tuple[str, ...]
    cw: tuple[int, int]
    wb: tuple[int, int]
    joint: tuple[str, ...] = nets.NAMES
    joint_radii: tuple[str, ...] = ("8/255", "0.16")


class Study:
    """One data set at one scale."""

    def __init__(self, options: argparse.Namespace, scale: Scale):
        """Read the test split; everything else is read when needed."""
        self.options, self.scale = options, scale
        self.test = self.load("test")
        self.folder = options.runs / f"rce-{slug(options.data)}-{options.scale}"

    def load(self, split: str) -> data.Dataset:
        """A split."""
        return data.load(self.options.data, split, self.options.data_dir)

    def train(self, name: str) -> Path:
        """The run directory of a net, trained."""
        grey = self.test.image_shape[-1] == 1
        words = [NETS[name], *self.scale.model.split(), *CARD.split(), *CARDS[grey].split()]
        words += ["--epochs", str(self.scale.epochs[not grey])]
        words += ["--lr", str(self.scale.lr[name == "RCE"]), "--validation-attack", "none"]
        return trained(self.folder / name.lower(), words, self.options)

    @functools.cached_property
    def watched(self) -> dict[str, nets.Net]:
        """Both nets and their detectors."""
        train, validation = self.load("train").head(self.scale.fit), self.load("validation")
        return {
            name: nets.watch(self.train(name), train, validation, SIGMA2[name]) for name in NETS
        }

    @functools.cached_property
    def images(self) -> np.ndarray:
        """The test images that any phase needs, as floats."""
        return np.asarray(data.to_float(self.test.head(max(self.scale.n.values())).images))

    @functools.cached_property
    def clean(self) -> dict[str, nets.Seen]:
        """Their predictions and scores by both nets."""
        return {name: nets.see(net, self.images) for name, net in self.watched.items()}

    def under(
        self, logits_fn: Any, named: dict, n: int, journal: Path, **how: Any
    ) -> evaluation.Report:
        """The first n images under attack; a killed run resumes."""
        test, key = self.test.head(n), jax.random.key(0)
        how |= {"indices": test.indices, "journal": journal, "progress": True}
        return evaluation.evaluate(logits_fn, self.images[:n], test.labels, named, key, **how)

    def oblivious(self, phase: str, name: str) -> dict[str, Any]:
        """Attacks on the classifier alone, as its own detectors and the other net's see them."""
        n, run = self.scale.n[phase], self.folder / name.lower()
        named = oblivious(phase, self.scale, self.test.image_shape)
        found = self.under(self.watched[name].logits_fn, named, n, run / "journal")
        rows = {attack: self.row(images) for attack, images in found.adversarial.items()}
        for attack, row in rows.items():
            row["zero gradient"] = found.zero_gradient.get(attack)
        return {"attacks": rows, "warnings": found.warnings}

    def joint(self, name: str) -> dict[str, Any]:
        """PGD on the net and each of its detectors together; a file for each detector."""
        folder, rows = self.folder / name.lower() / "joint", {}
        for detector in self.scale.joint:
            rows |= once(folder / f"{detector}.json", partial(self.against, name, detector))
        return {"attacks": rows}

    def against(self, name: str, detector: str) -> dict[str, Any]:
        """PGD on a net and one of its detectors, the worst of three constraints, by radius."""
        net, n = self.watched[name], self.scale.n["joint"]
        model = detection.with_score(net.fitted[detector], net.thresholds[detector])
        named = {
            f"{detector}@{eps}": detection.AdaptivePGD(Linf(config.parse_number(eps)))
            for eps in self.scale.joint_radii
        }
        journal, success = self.folder / name.lower() / "journal", detection.accepted_and_wrong
        found = self.under(model, named, n, journal, success=success)
        rows = {attack: self.row(images, [name]) for attack, images in found.adversarial.items()}
        return {attack: row | {"warnings": found.warnings} for attack, row in rows.items()}

    def white_box(self, name: str) -> dict[str, Any]:
        """C&W-wb on the K-density, which is to be a class's median: distortions, and f2 > 0."""
        net, n = self.watched[name], self.scale.n["wb"]
        model = detection.with_score(net.fitted["k-density"], net.medians)
        rounds, steps = self.scale.wb
        named = {"C&W-wb": detection.CarliniWagnerWB(rounds=rounds, steps=steps)}
        found = self.under(model, named, n, self.folder / name.lower() / "journal")
        (images,) = found.adversarial.values()
        density = detection.scores(net.fitted["k-density"], images)
        predicted = nets.predictions(net, images)
        reached = (predicted != self.test.labels[:n]) & self.right(name)[:n]
        noticed = reached & (density < net.medians[predicted])
        size = nets.rms(images, self.images[:n])
        return {
            "attacks": {"C&W-wb": self.row(images, [name])},
            "reached": int(reached.sum()),
            "f2 > 0": float(noticed.sum() / reached.sum()) if reached.any() else None,
            "rms": quartiles(size[reached & ~noticed]),
            "rms with those of f2 > 0": quartiles(size[reached]),
            "warnings": found.warnings,
        }

    def right(self, name: str) -> np.ndarray:
        """Whether a net classifies each clean image correctly: (N,) bool."""
        return self.clean[name].predictions == self.test.labels[: len(self.images)]

    def row(self, images: np.ndarray, names: Any = NETS) -> dict[str, Any]:
        """The size of adversarial images, made from the first test images, and who detects them."""
        n = len(images)
        changed = nets.rms(images, self.images[:n])
        on = {}
        for name in names:
            net, clean = self.watched[name], jax.tree.map(lambda a: a[:n], self.clean[name])
            seen = nets.see(net, images)
            on[name] = nets.judge(net, self.test.labels[:n], clean, seen)
        return {"rms of the changed": quartiles(changed[changed > 0]), "on": on}

    def error(self, name: str) -> dict[str, float]:
        """The clean error on all test images."""
        logits_fn = self.watched[name].logits_fn
        labels = self.test.labels
        found = evaluation.evaluate(logits_fn, self.test.images, labels, {}, jax.random.key(0))
        return {"test error": 1 - found.clean, "n": len(labels)}

    def geometry(self, name: str) -> dict[str, Any]:
        """The ratio of the distances to z2 and to z1."""
        return feature_geometry.measure(*self.domain(name))

    def domain(self, name: str) -> tuple[feature_geometry.Head, np.ndarray, float]:
        """The head, the features of correctly classified images, and the non-ME's threshold."""
        net, n = self.watched[name], self.scale.n["geometry"]
        weights = net.logits_fn.args[0]["params"]["head"]
        head = feature_geometry.Head(*(np.asarray(weights[k], float) for k in ("kernel", "bias")))
        features = nets.features(net, self.images[:n][self.right(name)[:n]]).astype(float)
        return head, features, net.thresholds["non-me"]

    def phase(self, phase: str, name: str) -> dict[str, Any]:
        """The result of a net's phase, from its file if it is done."""
        if phase == "train":
            run = self.train(name)
            origin = files.read_json(run / "training.json")["provenance"]
            return {"run": run.name, "training": origin}
        verbs = {
            "clean": self.error,
            "joint": self.joint,
            "wb": self.white_box,
            "geometry": self.geometry,
        }
        verb = verbs.get(phase, partial(self.oblivious, phase))
        return once(self.folder / name.lower() / f"{phase}.json", partial(verb, name))


def quartiles(values: np.ndarray) -> list[float] | None:
    """25, 50 and 75 %; None of nothing."""
    return np.percentile(values, [25, 50, 75]).tolist() if len(values) else None


def oblivious(phase: str, scale: Scale, shape: tuple[int, ...]) -> dict[str, attacks.Iterative]:
    """The attacks of a phase by name; the largest eps is JSMA's step."""
    if phase == "jsma":
        step = max(map(config.parse_number, scale.radii))
        return {"JSMA": JSMA(L0(100.0), theta=step, gamma=min(1, 100 / np.prod(shape)))}
    if phase == "cw":
        rounds, steps = scale.cw
        how = {"rounds": rounds, "steps": steps, "constant": 1.0, "target": Random()}
        return {
            "C&W": CarliniWagnerL2(**how),
            "C&W-hc": CarliniWagnerL2(confidence=10.0, **how),
        }
    makers = {"FGSM": FGSM, "BIM": BIM, "ILCM": ILCM, "random": partial(PGD, steps=0)}
    return {
        f"{name}@{eps}": make(Linf(config.parse_number(eps)))
        for name, make in makers.items()
        for eps in scale.radii
    }
