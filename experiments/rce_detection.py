"""Does reverse cross-entropy make adversarial images detectable, and for whom?

Command:   python experiments/rce_detection.py --scale cpu --data-dir DIR   (DIR: prepared TFDS
           sets; --data mnist or --data arrays:DIR for others; --scale smoke: the path alone, on
           digits). In pieces: --phase train|clean|gradient|jsma|cw|joint|wb|geometry and --only
           CE|RCE do one piece, in any order after train; what is done is not done again, and the
           command without them puts everything together.
Hardware:  smoke: two minutes of two CPU cores; cpu: 90 minutes of two; gpu: half an hour of one
           large GPU for each data set; full: a GPU and the paper's 231 epochs (MNIST: 43).
Claim:     against attacks that do not know the detector, RCE with K-density detects C&W and C&W-hc
           better than the cross-entropy (CE) does, not FGSM and BIM; to misclassify and keep a
           normal non-ME features must move farther under RCE; attacks on net and detector together
           break both.
Measured:  nothing yet. Results go to results/rce_{data}_{scale}.json and two figures beside it.
Source:    Pang et al., NeurIPS 2018. AUC of K-density in an independent replication with ResNet-56
           and untargeted attacks, CE | RCE: `REPLICATION`.

The nets are the authors' ResNet-32 at gpu and full scale, ResNet-8 at cpu scale. Unlike theirs
images are standardised, crops come from 4 rows of zeros and not 2, and where epochs are few RCE has
the larger learning rate that its smaller gradients need. Adversarial images are made of images
that the net has right, one way of reading their protocol; JSMA ends at any wrong class.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from functools import partial
from pathlib import Path
from typing import Any

import detecting
import jax
import numpy as np
import separation
from record import chosen, once, place, scaled, slug, trained

from robustjax import attacks, config, data, detection, evaluation, files, parallel, report
from robustjax.attacks import BIM, FGSM, ILCM, JSMA, PGD, CarliniWagnerL2
from robustjax.threats import L0, Linf

NETS = {"CE": "natural", "RCE": "rce"}
SIGMA2 = {"CE": 1 / 0.26, "RCE": 0.1 / 0.26}
CARDS = {  # of grey images and of coloured ones, as in the authors' code for MNIST and CIFAR
    True: "--augment none --schedule piecewise:boundaries=1/2,3/4",
    False: "--augment zero-crop-flip --schedule piecewise:boundaries=4/9,6/9,8/9",
}
CARD = "--batch-size 128 --optimizer.weight-decay 2e-4 --optimizer.decay kernels"
REPLICATION = {  # as reported in the paper on Siamese detection; eps after the name
    "cifar10": {
        "clean accuracy": (0.9362, 0.933),
        "FGSM@.05": (0.958, 0.898),
        "FGSM@.1": (0.971, 0.926),
        "BIM@.05": (1.0, 0.99),
        "BIM@.1": (1.0, 0.996),
        "C&W": (0.874, 0.918),
        "C&W-hc": (0.637, 0.94),
        "JSMA": (0.952, 0.96),
        "white-box RMS": (0.008, 0.019),
    },
    "mnist": {
        "clean accuracy": (0.9933, 0.9932),
        "FGSM@.05": (0.981, 0.983),
        "FGSM@.1": (0.988, 0.99),
        "BIM@.05": (0.983, 0.967),
        "BIM@.1": (0.945, 0.92),
        "C&W": (0.994, 1.0),
        "C&W-hc": (0.88, 0.98),
        "JSMA": (0.995, 1.0),
        "white-box RMS": (0.087, 0.104),
    },
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is run.

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
    joint: tuple[str, ...] = detecting.NAMES
    joint_radii: tuple[str, ...] = ("8/255", "0.16")


PAPER = ("8/255", "0.02", "0.04", "0.08", "0.16")
SCALES = {
    "smoke": Scale(
        model="--model cnn --width 4",
        epochs=(15, 15),
        lr=(0.1, 1.0),
        fit=1000,
        n={"gradient": 64, "jsma": 16, "cw": 32, "joint": 32, "wb": 8, "geometry": 4},
        radii=("0.16",),
        cw=(2, 50),
        wb=(2, 50),
        joint=detecting.SHOWN,
        joint_radii=("0.16",),
    ),
    "cpu": Scale(
        model="--model resnet-8",
        epochs=(6, 8),
        lr=(0.1, 0.5),
        fit=10_000,
        n={"gradient": 300, "jsma": 100, "cw": 100, "joint": 100, "wb": 20, "geometry": 50},
        radii=("8/255", "0.08", "0.16"),
        cw=(5, 200),
        wb=(5, 200),
    ),
    "gpu": Scale(
        model="--model resnet-tf-32",
        epochs=(20, 40),
        lr=(0.1, 0.5),
        fit=60_000,
        n={"gradient": 1000, "jsma": 500, "cw": 200, "joint": 200, "wb": 100, "geometry": 100},
        radii=PAPER,
        cw=(9, 1000),
        wb=(9, 1000),
    ),
    "full": Scale(
        model="--model resnet-tf-32",
        epochs=(43, 231),
        lr=(0.1, 0.1),
        fit=60_000,
        n=dict.fromkeys(("gradient", "jsma", "cw", "joint", "wb", "geometry"), 1000),
        radii=PAPER,
        cw=(9, 10_000),
        wb=(9, 10_000),
    ),
}


class Study:
    """One data set at one scale."""

    def __init__(self, options: argparse.Namespace):
        """Nothing is read yet but the test split."""
        self.options, self.scale = options, SCALES[options.scale]
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
        words += ["--lr", str(self.scale.lr[name == "RCE"])]
        return trained(self.folder / name.lower(), words, self.options)

    @functools.cached_property
    def nets(self) -> dict[str, detecting.Net]:
        """Both nets and their detectors."""
        train, validation = self.load("train").head(self.scale.fit), self.load("validation")
        return {
            name: detecting.watch(self.train(name), train, validation, SIGMA2[name])
            for name in NETS
        }

    @functools.cached_property
    def images(self) -> np.ndarray:
        """The test images that any phase needs, as floats."""
        return np.asarray(data.to_float(self.test.head(max(self.scale.n.values())).images))

    @functools.cached_property
    def clean(self) -> dict[str, detecting.Seen]:
        """What the nets say of them."""
        return {name: detecting.see(net, self.images) for name, net in self.nets.items()}

    def under(self, logits_fn: Any, named: dict, n: int, journal: Path) -> evaluation.Report:
        """The first n images under attack; a run that was killed goes on."""
        test, key = self.test.head(n), jax.random.key(0)
        how = {"indices": test.indices, "journal": journal, "progress": True}
        return evaluation.evaluate(logits_fn, self.images[:n], test.labels, named, key, **how)

    def oblivious(self, phase: str, name: str) -> dict[str, Any]:
        """Attacks on the classifier alone, as its own detectors and the other net's see them."""
        n, run = self.scale.n[phase], self.folder / name.lower()
        named = oblivious(phase, self.scale, self.test.image_shape)
        found = self.under(self.nets[name].logits_fn, named, n, run / "journal")
        if phase == "cw":
            found.save_images(run / "cw.npz")
        rows = {attack: self.row(images) for attack, images in found.adversarial.items()}
        for attack, row in rows.items():
            row["zero gradient"] = found.zero_gradient.get(attack)
        return {"attacks": rows, "warnings": found.warnings}

    def joint(self, name: str) -> dict[str, Any]:
        """PGD on the net and each of its detectors together."""
        net, n, rows, warnings = self.nets[name], self.scale.n["joint"], {}, []
        for detector in self.scale.joint:
            model = detection.with_score(net.fitted[detector], net.thresholds[detector])
            named = {
                f"{detector}@{eps}": detection.JointPGD(Linf(config.number(eps)))
                for eps in self.scale.joint_radii
            }
            found = self.under(model, named, n, self.folder / name.lower() / "journal")
            warnings += found.warnings
            for attack, images in found.adversarial.items():
                rows[attack] = self.row(images, [name])
        return {"attacks": rows, "warnings": warnings}

    def white_box(self, name: str) -> dict[str, Any]:
        """C&W-wb on the K-density, which is to be a class's median: distortions, and f2 > 0."""
        net, n = self.nets[name], self.scale.n["wb"]
        model = detection.with_score(net.fitted["K-density"], net.medians)
        rounds, steps = self.scale.wb
        named = {"C&W-wb": detection.CarliniWagnerWB(rounds=rounds, steps=steps)}
        found = self.under(model, named, n, self.folder / name.lower() / "journal")
        (images,) = found.adversarial.values()
        density = detection.scores(net.fitted["K-density"], images)
        predicted = detecting.predictions(net, images)
        reached = (predicted != self.test.labels[:n]) & self.right(name)[:n]
        noticed = reached & (density < net.medians[predicted])
        size = detecting.rms(images, self.images[:n])
        return {
            "attacks": {"C&W-wb": self.row(images, [name])},
            "reached": int(reached.sum()),
            "f2 > 0": float(noticed.sum() / reached.sum()) if reached.any() else None,
            "rms": quartiles(size[reached & ~noticed]),
            "rms with those of f2 > 0": quartiles(size[reached]),
            "warnings": found.warnings,
        }

    def right(self, name: str) -> np.ndarray:
        """Which images a net has right."""
        return self.clean[name].predictions == self.test.labels[: len(self.images)]

    def row(self, images: np.ndarray, names: Any = NETS) -> dict[str, Any]:
        """Of adversarial images, made of the first ones: their size, and who detects them."""
        n = len(images)
        changed = detecting.rms(images, self.images[:n])
        on = {}
        for name in names:
            net, clean = self.nets[name], jax.tree.map(lambda a: a[:n], self.clean[name])
            seen = detecting.see(net, images)
            on[name] = detecting.judge(net, self.test.labels[:n], clean, seen)
        return {"rms of the changed": quartiles(changed[changed > 0]), "on": on}

    def error(self, name: str) -> dict[str, float]:
        """The clean error on all test images."""
        logits_fn = self.nets[name].logits_fn
        labels = self.test.labels
        found = evaluation.evaluate(logits_fn, self.test.images, labels, {}, jax.random.key(0))
        return {"test error": 1 - found.clean, "n": len(labels)}

    def geometry(self, name: str) -> dict[str, Any]:
        """How much farther z2 is than z1."""
        return separation.measure(*self.domain(name))

    def domain(self, name: str) -> tuple[separation.Head, np.ndarray, float]:
        """The head, the features of images that it has right, and the non-ME's threshold."""
        net, n = self.nets[name], self.scale.n["geometry"]
        weights = net.logits_fn.args[0]["params"]["head"]
        head = separation.Head(*(np.asarray(weights[k], float) for k in ("kernel", "bias")))
        features = detecting.features(net, self.images[:n][self.right(name)[:n]]).astype(float)
        return head, features, net.thresholds["non-ME"]

    def phase(self, phase: str, name: str) -> dict[str, Any]:
        """A phase of a net: what is kept of it, from its file if it is done."""
        if phase == "train":
            return {"run": self.train(name).name}
        verbs = {
            "clean": self.error,
            "joint": self.joint,
            "wb": self.white_box,
            "geometry": self.geometry,
        }
        verb = verbs.get(phase, partial(self.oblivious, phase))
        return once(self.folder / name.lower() / f"{phase}.json", partial(verb, name))

    def draw(self, png: Path) -> None:
        """Both figures, beside the results."""
        domains, points = {}, {}
        for name, net in self.nets.items():
            head, features, least = self.domain(name)
            usable = separation.non_me(head.logits(features)) >= least
            domains[name] = head, features[usable][0], least
            with np.load(self.folder / name.lower() / "cw.npz") as kept:
                made = kept["C&W"]
            fools = detecting.predictions(net, made) != self.test.labels[: len(made)]
            made = detecting.features(net, made[fools & self.right(name)[: len(made)]])
            n = self.scale.n["gradient"]
            shown = detecting.features(net, self.images[:n])
            points[name] = shown, self.test.labels[:n], made
        separation.draw_domains(domains, png.with_name(f"{png.stem}_domain.png"))
        separation.draw_features(points, png.with_name(f"{png.stem}_tsne.png"))


def quartiles(values: np.ndarray) -> list[float] | None:
    """25, 50 and 75 %; None of nothing."""
    return np.percentile(values, [25, 50, 75]).tolist() if len(values) else None


def oblivious(phase: str, scale: Scale, shape: tuple[int, ...]) -> dict[str, attacks.Iterative]:
    """The attacks of a phase by name; the largest eps is JSMA's step."""
    if phase == "jsma":
        step = max(map(config.number, scale.radii))
        return {"JSMA": JSMA(L0(100.0), theta=step, gamma=min(1, 100 / np.prod(shape)))}
    if phase == "cw":
        rounds, steps = scale.cw
        how = {"rounds": rounds, "steps": steps, "constant": 1.0, "label": "random"}
        return {
            "C&W": CarliniWagnerL2(**how),
            "C&W-hc": CarliniWagnerL2(confidence=10.0, **how),
        }
    makers = {"FGSM": FGSM, "BIM": BIM, "ILCM": ILCM, "random": partial(PGD, steps=0)}
    return {
        f"{name}@{eps}": make(Linf(config.number(eps)))
        for name, make in makers.items()
        for eps in scale.radii
    }


OBLIVIOUS = ("gradient", "jsma", "cw")
PHASES = ("train", "clean", *OBLIVIOUS, "wb", "geometry", "joint")


def main(options: argparse.Namespace) -> None:
    """Do what is asked and missing; if everything is asked, write the tables and figures."""
    started = time.time()
    parallel.use_all_cores()
    study = Study(options)
    done: dict[str, dict[str, Any]] = {}
    for phase in [options.phase] if options.phase else PHASES:
        names = [options.only] if options.only else NETS
        done[phase] = {name: study.phase(phase, name) for name in names}
    if options.only or options.phase:
        return
    result = {
        "provenance": report.provenance(report.command_line(), 0, started),
        "scale": dataclasses.asdict(study.scale),
        "replication": REPLICATION.get(slug(options.data), {}),
        **done,
    }
    path = place(options) / f"rce_{slug(options.data)}_{options.scale}"
    files.write_json(path.with_suffix(".json"), result)
    study.draw(path.with_suffix(".png"))
    print(summary(done, study.scale.joint_radii))


def summary(done: dict[str, dict[str, Any]], radii: tuple[str, ...]) -> str:
    """The tables, as Markdown."""

    def rows(*phases):
        return {
            name: {a: row for phase in phases for a, row in done[phase][name]["attacks"].items()}
            for name in NETS
        }

    other = dict(zip(NETS, reversed(NETS), strict=True))
    lines = [
        f"{name}: test error {100 * row['test error']:.2f} % of {row['n']}; z2 over z1 "
        f"{done['geometry'][name]['z2 over z1, quartiles']}"
        for name, row in done["clean"].items()
    ]
    lines += [
        f"{name}: C&W-wb f2 > 0 {row['f2 > 0']}, rms {row['rms']} of {row['reached']} reached"
        for name, row in done["wb"].items()
    ]
    titles = {
        "white-box on the K-density (C&W-wb) and oblivious": (
            rows(*OBLIVIOUS, "wb"),
            {name: name for name in NETS},
        ),
        "black-box, made on the other net": (rows(*OBLIVIOUS), other),
    }
    for title, (found, on) in titles.items():
        lines += ["", f"AUC x 100, {title}:", "", detecting.aucs(found, on)]
    own, joint = rows("gradient"), rows("joint")
    lines += ["", "AUC x 100 and accepted and wrong in %, oblivious and adaptive:", ""]
    lines += [detecting.beside(own, joint, radii)]
    return "\n".join(lines)


if __name__ == "__main__":
    known = scaled(__doc__, SCALES)
    known.add_argument("--phase", choices=PHASES, help="do this piece alone")
    main(chosen(known))
