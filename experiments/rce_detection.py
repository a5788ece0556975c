"""Does reverse cross-entropy make adversarial images detectable, and for whom?

Command:   python experiments/rce_detection.py --scale cpu --data-dir DIR   (DIR: prepared TFDS
           sets; --data mnist or --data arrays:DIR for others; --scale smoke: the path alone, on
           digits). In pieces: --phase train|clean|gradient|jsma|cw|joint|wb|geometry and --only
           CE|RCE do one piece, in any order after train; finished pieces are kept, and the
           command without them puts everything together, except what --without names. On a GPU set
           JAX_DEFAULT_MATMUL_PRECISION=highest for all phases except train: products of 10 bits
           move margins.
Hardware:  smoke: two minutes of two CPU cores; cpu: 90 minutes of two; gpu: half an hour of one
           large GPU for each data set; full: a GPU and the paper's 231 epochs (MNIST: 43).
Claim:     against attacks that do not know the detector, RCE with K-density detects C&W and C&W-hc
           better than the cross-entropy (CE) does, not FGSM and BIM; to misclassify and keep a
           normal non-ME features must move farther under RCE; attacks on net and detector together
           break both.
Measured:  gpu, MNIST: AUC of K-density under C&W with confidence 10: CE 87.0, RCE 100.0; C&W-wb
           gets past it wherever it reaches its class (CE 128 of 128, RCE 97), at a median RMS of
           .082 and .083. z2 over z1: CE 1.08, RCE 1.38; CIFAR-10: 1.00 and 1.25. cpu, both sets,
           every phase: under PGD on net and K-density together 93 and 95 of 100 MNIST images at .16
           are wrong and accepted (BIM: 5 and 1 %), and all of CIFAR-10 at 8/255 (47 and 42 %).
           Results go to results/rce_{data}_{scale}.json.
Source:    Pang et al., NeurIPS 2018. AUC of K-density in an independent replication with ResNet-56
           and untargeted attacks, CE | RCE: `REPLICATION`.

The nets are the authors' ResNet-32 at gpu and full scale, ResNet-8 at cpu scale. Unlike theirs
images are standardised and crops come from 4 rows of zeros, not 2; with few epochs RCE has a larger
learning rate, because its gradients are nine times smaller at first. Adversarial images are made
from correctly classified images, one way of reading their protocol; JSMA ends at any wrong class.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

from rce import tables
from rce.study import NETS, OBLIVIOUS, PHASES, Scale, Study
from runner import launch, scaled, slug, wanted, write_result

from robustjax import report

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
        joint=("non-me", "k-density"),
        joint_radii=("0.16",),
    ),
    "cpu": Scale(
        model="--model resnet-8",
        epochs=(6, 8),
        lr=(0.1, 1.0),
        fit=10_000,
        n={"gradient": 300, "jsma": 100, "cw": 100, "joint": 100, "wb": 20, "geometry": 50},
        radii=("8/255", "0.08", "0.16"),
        cw=(5, 200),
        wb=(5, 200),
    ),
    "gpu": Scale(
        model="--model resnet-tf-32",
        epochs=(15, 30),
        lr=(0.1, 0.5),
        fit=60_000,
        n={"gradient": 1000, "jsma": 256, "cw": 100, "joint": 100, "wb": 128, "geometry": 100},
        radii=PAPER,
        cw=(5, 200),
        wb=(6, 500),
        joint=("non-me", "k-density"),
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


def main(options: argparse.Namespace) -> None:
    """Do what is asked and missing; if everything is asked, write the tables."""
    started = time.time()
    study = Study(options, SCALES[options.scale])
    done: dict[str, dict[str, Any]] = {}
    phases = [options.phase] if options.phase else PHASES
    for phase in [phase for phase in phases if phase not in options.without]:
        done[phase] = {name: study.phase(phase, name) for name in wanted(options, NETS)}
    if options.only or options.phase:
        return
    result = {
        "provenance": report.provenance(report.command_line(), 0, started),
        "scale": dataclasses.asdict(study.scale),
        "replication": REPLICATION.get(slug(options.data), {}),
        **done,
    }
    write_result(options.results, result)
    print(summary(done, study.scale.joint_radii))


def summary(done: dict[str, dict[str, Any]], radii: tuple[str, ...]) -> str:
    """The tables, as Markdown."""

    def rows(*phases):
        return {
            name: {
                attack: row
                for phase in phases
                if phase in done
                for attack, row in done[phase][name]["attacks"].items()
            }
            for name in NETS
        }

    other = dict(zip(NETS, reversed(NETS), strict=True))
    lines = [
        f"{name}: test error {100 * row['test error']:.2f} % of {row['n']}"
        for name, row in done.get("clean", {}).items()
    ]
    lines += [
        f"{name}: z2 over z1 {row['z2 over z1, quartiles']}"
        for name, row in done.get("geometry", {}).items()
    ]
    lines += [
        f"{name}: C&W-wb f2 > 0 {row['f2 > 0']}, rms {row['rms']} of {row['reached']} reached"
        for name, row in done.get("wb", {}).items()
    ]
    titles = {
        "white-box on the K-density (C&W-wb) and oblivious": (
            rows(*OBLIVIOUS, "wb"),
            {name: name for name in NETS},
        ),
        "black-box, made on the other net": (rows(*OBLIVIOUS), other),
    }
    for title, (found, on) in titles.items():
        lines += ["", f"AUC x 100, {title}:", "", tables.aucs(found, on)]
    if not {"gradient", "joint"} <= done.keys():
        return "\n".join(lines)
    own, joint = rows("gradient"), rows("joint")
    lines += ["", "AUC x 100 and accepted and wrong in %, oblivious and adaptive:", ""]
    lines += [tables.beside(own, joint, radii)]
    return "\n".join(lines)


if __name__ == "__main__":
    known = scaled(__doc__, SCALES)
    known.add_argument("--phase", choices=PHASES, help="do this piece alone")
    known.add_argument(
        "--without", nargs="+", choices=PHASES, default=(), help="leave these out of the tables"
    )
    launch(main, known, "rce")
