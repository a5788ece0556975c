"""Do detectors hold under attack? Eighteen of them, nine attackers, robust accuracy over eps.

Command:   python experiments/detection_benchmark.py --scale cpu --data-dir DIR   (DIR: prepared
           TFDS sets; --only lid for one detector; --scale smoke: the path alone, on digits). What
           is finished is kept, detector by detector and seed by seed.
Hardware:  smoke: seven minutes of one CPU core, which compile 90 attacks; cpu: MNIST, two to five
           minutes of one for a detector, an hour for either lid; gpu: CIFAR-10, ResNet-18, not
           measured.
Claim:     what attackers leave who do not know the detector says little about those who do (Carlini
           & Wagner 2017); and a detector that is robust at eps makes a classifier that is robust at
           eps / 2 (Tramer 2022), so robustness beyond every known classifier's is a claim to doubt.
Measured:  cpu, Linf 0.3: attackers who do not know the Mahalanobis distance leave 96.7 %, those who
           do 6.7; of squeezing, which rounds each pixel to black or white, 92.0 and 79.0; of
           prediction inconsistency 91.3 and 74.3; of the fourteen others that were run nothing.
           Results go to results/detection_benchmark_{data}_{scale}.json and .png.
Source:    Tramer, "Detecting adversarial examples is (nearly) as hard as classifying them", 2022;
           the detectors' papers are in `robustjax detectors`; `BEST_KNOWN` names its own.

PGD, C&W and Square attack the classifier; `transfer` is PGD on the next seed's network. The others
attack classifier and detector together: `sum`, `sum, momentum` and `orthogonal` are the parts of
`AdaptivePGD`, `Square on both` sees scores only, and C&W-wb has no bound but --scale's L2.
Thresholds reject 1 % of the clean validation images. Robust accuracy counts an image if its clean
version is accepted and right, and its adversarial one is not accepted and wrong; `all that know` is
an image's worst over the attackers that know the detector, at this eps and smaller ones. The
networks have dropout, for `uncertainty`; `prediction-inconsistency` asks another network, trained
adversarially; `lid, weighted` has seen PGD images of the first training images.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from figures import redraw
from jax.tree_util import Partial
from runner import added, launch, once, scaled, slug, trained, wanted

from robustjax import data, detection, evaluation, models, report
from robustjax.attacks import PGD, CarliniWagnerL2, Randomized, Square, perturb
from robustjax.losses import margin
from robustjax.threats import L2, Linf

FALSE_REJECTION = 0.01
COLUMNS = ("auc", "detected_5", "detected_1", "accepted_wrong", "robust_accuracy")
"""The fields of `detection.Rates` that are kept."""
FORMS = ("sum", "sum, momentum", "orthogonal")
"""The attacks of `AdaptivePGD`, in its order."""
AWARE = (*FORMS, "Square on both")
TOGETHER = "all that know"
PANELS = ("PGD", "transfer", "Square", *AWARE, TOGETHER)
TITLES = {
    "PGD": "PGD on the network",
    "transfer": "PGD on another network",
    "Square": "Square on the network",
    "sum": "PGD on both losses, Adam",
    "sum, momentum": "PGD on both losses, momentum",
    "orthogonal": "PGD, orthogonal steps",
    "Square on both": "Square on network and detector",
    TOGETHER: "all that know the detector",
}
WEIGHTED = "lid, weighted"
KINDS = {
    "C0": ("confidence", "entropy", "non-me", "energy", "max-margin", "center-distance"),
    "C1": ("grad-norm", "k-density", "mahalanobis", "lid", WEIGHTED, "layer-inconsistency"),
    "C2": ("neighbors", "squeezing", "reconstruction", "divergence"),
    "C3": ("uncertainty", "prediction-inconsistency"),
}
"""Colour -> the detectors that read logits, layers, a changed image, and several networks."""
NAMES = tuple(name for names in KINDS.values() for name in names)
BEST_KNOWN = {
    "mnist": {
        0.0: 0.9948,  # TRADES' network: Zhang et al. 2019
        0.1: 0.9777,  # verified: interval bound propagation, Gowal et al. 2018
        0.15: 0.974,  # results/mnist-pgd-7.json, under PGD-20
        0.3: 0.9332,  # verified: CROWN-IBP, Zhang et al. 2020, as in their repository
    },
    "cifar10": {
        0.0: 0.9368,
        8 / 255: 0.7371,  # Bartoldson et al. 2024, under AutoAttack: RobustBench
    },
}
"""Linf radius -> the accuracy of the best classifier we know of; straight lines in between."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of it is run.

    Attributes:
      train: flags of the networks' training.
      auxiliary: method and flags of the other network's.
      seeds: number of networks.
      fit: training images that detectors are fitted to, the first ones.
      autoencoder: epochs of MagNet's.
      n: test images, the first ones, for attackers that do not know the detector.
      aware: for those that do.
      radii: eps of the Linf attacks.
      l2: eps of C&W's and of C&W-wb's result.
      steps: of PGD and of each part of `AdaptivePGD`.
      queries: of Square.
      cw: rounds and steps of C&W and of C&W-wb.
    """

    train: str
    auxiliary: str
    seeds: int
    fit: int
    autoencoder: int
    n: int
    aware: int
    radii: tuple[float, ...]
    l2: float
    steps: int
    queries: int
    cw: tuple[int, int]


SCALES = {
    "smoke": Scale(
        train="--model cnn --width 4 --epochs 8 --lr 0.1",
        auxiliary="fast-at --model cnn --width 4 --epochs 8 --lr 0.1 --eps 0.1",
        seeds=2,
        fit=1000,
        autoencoder=2,
        n=32,
        aware=16,
        radii=(0.1, 0.2),
        l2=2.0,
        steps=5,
        queries=20,
        cw=(1, 20),
    ),
    "cpu": Scale(
        train="--model cnn --width 16 --epochs 5 --batch-size 128 --optimizer.name adam "
        "--optimizer.weight-decay 0 --lr 0.002 --schedule one-cycle",
        auxiliary="fast-at --card mnist --epochs 3",
        seeds=3,
        fit=5000,
        autoencoder=20,
        n=200,
        aware=100,
        radii=(0.1, 0.2, 0.3),
        l2=2.0,
        steps=100,
        queries=200,
        cw=(2, 100),
    ),
    "gpu": Scale(
        train="--model resnet-18 --dtype bfloat16 --epochs 30 --batch-size 128 --lr 0.1 "
        "--schedule one-cycle",
        auxiliary="fast-at --model resnet-18 --dtype bfloat16 --epochs 15",
        seeds=3,
        fit=50_000,
        autoencoder=100,
        n=1000,
        aware=500,
        radii=(2 / 255, 4 / 255, 8 / 255, 16 / 255),
        l2=1.0,
        steps=100,
        queries=1000,
        cw=(5, 200),
    ),
}


class Watched(NamedTuple):
    """A network and its detectors."""

    logits_fn: Partial
    fitted: dict[str, Any]


class Benchmark:
    """One data set at one scale."""

    def __init__(self, options: argparse.Namespace, scale: Scale):
        """Read the test images; everything else is read or made when needed."""
        self.options, self.scale = options, scale
        self.folder = options.runs / f"detection-{slug(options.data)}-{options.scale}"
        self.test = self.load("test").head(scale.n)
        self.validation = self.load("validation").images

    def load(self, split: str) -> data.Dataset:
        """A split."""
        return data.load(self.options.data, split, self.options.data_dir)

    def network(self, name: str, flags: str) -> Partial:
        """A trained network."""
        run = trained(self.folder / name, flags.split(), self.options)
        return models.load(run, weights="last")[0]

    @functools.cached_property
    def networks(self) -> list[Partial]:
        """The network of each seed."""
        flags = f"natural {self.scale.train} --dropout 1/2 --validation-attack none --seed "
        return [self.network(f"seed-{i}", f"{flags}{i}") for i in range(self.scale.seeds)]

    @functools.cached_property
    def detectors(self) -> dict[str, detection.Detector]:
        """All that need no attack to be fitted."""
        train = self.load("train").head(self.scale.fit)
        grey = train.image_shape[-1] == 1
        squeezers = (detection.BitDepth(1 if grey else 5), detection.MedianSmoothing())
        autoencoder = detection.Autoencoder(epochs=self.scale.autoencoder)
        reproduce = autoencoder.fit(np.asarray(data.to_float(train.images)))
        other = self.network("auxiliary", self.scale.auxiliary)
        own = {
            "squeezing": detection.FeatureSqueezing(squeezers),
            "reconstruction": detection.ReconstructionError(reproduce),
            "divergence": detection.ReconstructionDivergence(reproduce),
            "prediction-inconsistency": detection.PredictionInconsistency(other),
        }
        return {n: own.get(n) or detection.DETECTORS[n] for n in NAMES if n != WEIGHTED}

    @functools.cache  # noqa: B019, the benchmark lives as long as its process
    def watched(self, seed: int) -> Watched:
        """A network, and every detector fitted to it."""
        logits_fn, train = self.networks[seed], self.load("train").head(self.scale.fit)
        layers, dropout = models.with_layers(logits_fn), models.with_dropout(logits_fn)
        fitted: dict[str, Any] = {}
        for name, detector in self.detectors.items():
            model = Randomized(dropout) if name == "uncertainty" else layers
            fitted[name] = detector.fit(model, train.images, train.labels)
        fitted[WEIGHTED] = self.weighted(logits_fn, fitted["lid"], train.head(500))
        return Watched(logits_fn, fitted)

    def weighted(self, logits_fn: Partial, lid: Any, some: data.Dataset) -> detection.Combined:
        """Ma et al.'s regression: clean and noisy images against PGD's at the middle radius."""
        eps = self.scale.radii[len(self.scale.radii) // 2]
        clean, key = np.asarray(data.to_float(some.images)), jax.random.key(1)
        made = perturb(PGD(Linf(eps), self.scale.steps), logits_fn, key, clean, some.labels)
        noise = np.sqrt(np.mean(np.square(made - clean))) * jax.random.normal(key, clean.shape)
        normal = np.concatenate([clean, np.clip(clean + noise, 0, 1)])
        return detection.combine([lid], normal, made)

    def measured(
        self, seed: int, names: list[str], n: int, **how: Any
    ) -> evaluation.DetectionReport:
        """Some detectors of a network under attack, on the first n test images."""
        logits_fn, fitted = self.watched(seed)
        test, chosen = self.test.head(n), {name: fitted[name] for name in names}
        how = {"attacks": {}, "indices": test.indices, "progress": True} | how
        return evaluation.detect(
            logits_fn,
            chosen,
            test.images,
            test.labels,
            self.validation,
            key=jax.random.key(0),
            false_rejection=FALSE_REJECTION,
            **how,
        )

    def unaware(self, seed: int) -> dict[str, dict[str, Any]]:
        """Detector -> attack -> columns: attackers that do not know the detector."""
        scale, threat = self.scale, L2(self.scale.l2)
        rounds, steps = scale.cw
        pgd = {f"PGD@{eps:g}": PGD(Linf(eps), scale.steps) for eps in scale.radii}
        square = {f"Square@{eps:g}": Square(Linf(eps), scale.queries) for eps in scale.radii}
        own = pgd | square | {"C&W": CarliniWagnerL2(threat, steps=steps, rounds=rounds)}
        other = self.networks[(seed + 1) % scale.seeds]
        rows: dict[str, dict[str, Any]] = {name: {} for name in NAMES}
        for how in ({"attacks": own}, {"attacks": pgd, "substitutes": {"another": other}}):
            found = self.measured(seed, list(NAMES), scale.n, **how).found
            for name, row in found.items():
                rows[name] |= {
                    attack.replace("PGD", "transfer").removesuffix(" from another")
                    if "from" in attack
                    else attack: columns(rates)
                    for attack, rates in row.items()
                }
        return rows

    def aware(self, seed: int, name: str) -> dict[str, Any]:
        """Attack -> columns: attackers that know this detector, its threshold and the network."""
        scale, (rounds, steps) = self.scale, self.scale.cw
        named: dict[str, Any] = {
            f"{form}@{eps:g}": attack
            for eps in scale.radii
            for form, attack in zip(
                FORMS, detection.AdaptivePGD(Linf(eps), scale.steps).attacks, strict=True
            )
        }
        blind = {"loss": hidden, "success": detection.accepted_and_wrong}
        named |= {
            f"Square on both@{eps:g}": Square(Linf(eps), scale.queries, **blind)
            for eps in scale.radii
        }
        named["C&W-wb"] = detection.CarliniWagnerWB(L2(scale.l2), steps=steps, rounds=rounds)
        started = time.time()
        found = self.measured(seed, [name], scale.aware, white_box=named)
        row: dict[str, Any] = {a: columns(rates) for a, rates in found.found[name].items()}
        row |= together(found, name, self.test.labels[: scale.aware], scale.radii)
        return row | {"seconds": round(time.time() - started, 1)}

    def row(self, name: str) -> dict[str, Any]:
        """Attack -> column -> a number for each seed; and what the detector claims too much."""
        seeds = []
        for seed in range(self.scale.seeds):
            where = self.folder / f"seed-{seed}"
            both = once(where / "unaware.json", functools.partial(self.unaware, seed))[name]
            measure = functools.partial(self.aware, seed, name)
            seeds.append(both | once(where / f"{name}.json", measure))
        seconds = [row.pop("seconds") for row in seeds]
        found = {
            attack: {column: [row[attack][column] for row in seeds] for column in seeds[0][attack]}
            for attack in seeds[0]
        }
        claims = {"claims more than any known classifier": self.claims(found)}
        return found | claims | {"seconds of those that know": seconds}

    def claims(self, found: dict[str, Any]) -> list[str]:
        """The attacks that leave a robust accuracy beyond the best known one at half their eps.

        By more than a standard error of the seeds' images together.
        """
        beyond = []
        for attack, numbers in found.items():
            least = best_known(slug(self.options.data), attack)
            if least is not None:
                n = self.scale.seeds * (self.scale.n if unaware(attack) else self.scale.aware)
                mean = float(np.mean(numbers["robust_accuracy"]))
                if mean - np.sqrt(mean * (1 - mean) / n) > least:
                    beyond.append(attack)
        return beyond


def hidden(output: Any, target: jax.Array) -> jax.Array:
    """The lead of a wrong class until there is one, then the score, which is bounded above it."""
    lead, score = margin(output, target), output["score"]
    return jnp.where(lead > 0, 1 + score / (1 + jnp.abs(score)), jnp.minimum(lead, 0) - 1)


def columns(rates: detection.Rates) -> dict[str, float | None]:
    """What is kept; nan is None."""
    numbers = {name: getattr(rates, name) for name in COLUMNS}
    return {name: None if np.isnan(x) else round(x, 4) for name, x in numbers.items()}


def together(
    found: evaluation.DetectionReport, name: str, labels: np.ndarray, radii: tuple[float, ...]
) -> dict[str, dict[str, float]]:
    """Each image's worst over the attackers that know the detector, up to a radius."""
    views, least = found.views[name], found.threshold[name]
    usable = (views["clean"].prediction == labels) & (views["clean"].score >= least)
    won, rows = np.zeros(len(labels), bool), {}
    for eps in radii:
        for attacker in AWARE:
            view = views[f"{attacker}@{eps:g}"]
            won |= (view.prediction != labels) & (view.score >= least)
        robust = round(float(np.mean(usable & ~won)), 4)
        rows[f"{TOGETHER}@{eps:g}"] = {
            "accepted_wrong": round(float(won.mean()), 4),
            "robust_accuracy": robust,
        }
    return rows


def unaware(attack: str) -> bool:
    """Whether the attacker does not know the detector."""
    return attack.split("@")[0] in ("PGD", "transfer", "Square", "C&W")


def best_known(name: str, attack: str) -> float | None:
    """The best known accuracy at half the eps of an attack 'NAME@EPS'; None if we know none."""
    points = BEST_KNOWN.get(name)
    _, at, eps = attack.partition("@")
    if not at or points is None:
        return None
    return float(np.interp(float(eps) / 2, list(points), list(points.values())))


def draw(results: dict[str, Any], png: Path) -> None:
    """A panel for each attacker: robust accuracy with rejection over eps, a line a detector.

    The colour says what a detector reads, see `KINDS`.
    """
    rows, name = results["rows"], png.stem.split("_")[-2]
    least, first = f"{PANELS[0]}@", next(iter(rows.values()))
    radii = [float(attack.removeprefix(least)) for attack in first if attack.startswith(least)]
    ticks = [report.format_eps(eps) for eps in radii]
    colors = {name: color for color, names in KINDS.items() for name in names}
    marks = {name: "os^DvP"[i] for names in KINDS.values() for i, name in enumerate(names)}
    columns = min(4, len(PANELS))
    lines = math.ceil(len(PANELS) / columns)
    with report.figure(png, columns, lines, (3.6, 3.0), sharex=True, sharey=True) as axes:
        for ax in axes[len(PANELS) :]:
            ax.remove()
        for ax, attacker in zip(axes, PANELS, strict=False):
            for detector, row in rows.items():
                points = [row[f"{attacker}@{eps:g}"]["robust_accuracy"] for eps in radii]
                look = {"color": colors[detector], "marker": marks[detector], "markersize": 4}
                ax.plot(radii, [100 * np.mean(point) for point in points], label=detector, **look)
            known = [best_known(name, f"@{eps:g}") for eps in radii]
            if None not in known:
                shares = [100 * share for share in known if share is not None]
                text = "best known classifier at half the radius"
                ax.plot(radii, shares, "k--", linewidth=1.5, label=text)
            ax.set_xticks(radii, ticks)
            ax.set(title=TITLES.get(attacker, attacker), ylim=(-3, 103))
        for ax in axes[len(axes) - columns :]:
            ax.set_xlabel("L∞ radius ε")
        for ax in axes[::columns]:
            ax.set_ylabel("robust accuracy, %")
        handles, labels = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=6)


def table(rows: dict[str, Any], eps: float) -> str:
    """Robust accuracy in percent at one eps; a star: more than any known classifier's."""
    lines = ["| | " + " | ".join(PANELS) + " |", "| --- |" + " ---: |" * len(PANELS)]
    for name, row in rows.items():
        cells = []
        for attacker in PANELS:
            attack = f"{attacker}@{eps:g}"
            star = "*" if attack in row["claims more than any known classifier"] else ""
            cells.append(f"{100 * np.mean(row[attack]['robust_accuracy']):.1f}{star}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(options: argparse.Namespace) -> None:
    """Make the rows that are missing, and write the table and the figure after every row."""
    started, scale = time.time(), SCALES[options.scale]
    names = wanted(options, NAMES)
    benchmark = Benchmark(options, scale)
    for name in names:
        made = benchmark.row(name)
        rows = added(options.results, "rows", name, made, started)
        redraw(options.results, draw)
    print(table(rows, scale.radii[-1]))


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "detection_benchmark", draw, sets={"cpu": "mnist"})
