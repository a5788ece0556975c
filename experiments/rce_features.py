"""Where networks trained by RCE and by the cross-entropy (CE) put their features: t-SNE of both.

Command:   python experiments/rce_features.py --scale cpu --data mnist --data-dir DIR  (DIR:
           prepared TFDS sets; --data cifar10 or arrays:DIR; --scale smoke: the path alone)
Hardware:  smoke: a minute of one CPU core; cpu: ResNet-8, 2 epochs for each loss, five minutes of
           one core.
Claim:     under RCE the features of a class lie along one direction, under CE they do not; images
           that C&W changes lie at the edges of classes under CE, away from them under RCE.
Measured:  cpu, MNIST: 88 % of a class's variance along one direction under RCE, 31 % under CE, at
           99.1 and 98.9 % accuracy; CIFAR-10: 38 and 29 %, at 57.2 and 63.4 %, where most classes
           overlap and nothing is decided; one seed. Results go to
           results/rce_features_{data}_{scale}.json, .npz and .png.
Source:    Pang et al., NeurIPS 2018, Figure 1, of a ResNet-32 that errs on 7 % of CIFAR-10.

`first direction` is the share of the features' variance within a class that lies along its first
principal component, the median over classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np
from figures import CLASS_COLORS
from rce.pair import Measured, compare
from rce.study import NETS
from runner import launch, scaled, slug, trained
from sklearn.manifold import TSNE

from robustjax import attacks, data, files, models, report

SHARED = (
    "--batch-size 128 --optimizer.weight-decay 2e-4 --optimizer.decay kernels "
    "--schedule one-cycle --validation-attack none"
)
RATES = {"CE": 0.1, "RCE": 1.0}
SCALES = {"smoke": "--model cnn --width 4", "cpu": "--model resnet-8"}
EPOCHS = 2
SHOWN, ATTACKED = 1000, 100
"""Test images, the first ones, and the first of them that are attacked."""


def train(name: str, grey: bool, options: argparse.Namespace) -> Path:
    """The run directory of one net, trained."""
    run = options.runs / f"features-{slug(options.data)}-{options.scale}" / name.lower()
    words = [NETS[name], *SCALES[options.scale].split(), *SHARED.split(), "--lr", str(RATES[name])]
    words += ["--epochs", str(EPOCHS)]
    words += ["--augment", "none" if grey else "crop-flip"]
    return trained(run, words, options)


def measure(name: str, options: argparse.Namespace) -> Measured:
    """Train one net; its numbers, and where t-SNE puts the features."""
    test = data.load(options.data, "test", options.data_dir)
    run = train(name, test.image_shape[-1] == 1, options)
    logits_fn, features_fn, _ = models.load(run, weights="last")
    test, predict = test.head(SHOWN), jax.jit(logits_fn)
    images, labels = data.to_float(test.images), test.labels
    right = np.asarray(predict(images)).argmax(-1) == labels
    attack = attacks.CarliniWagnerL2(rounds=2, steps=50, constant=1.0)
    few = images[:ATTACKED]
    changed = attacks.perturb(attack, logits_fn, jax.random.key(0), few, labels[:ATTACKED])
    taken = np.asarray(predict(changed)).argmax(-1)
    fooled = right[:ATTACKED] & (taken != labels[:ATTACKED])
    clean, adversarial = (np.asarray(jax.jit(features_fn)(x)) for x in (images, changed))
    both = np.concatenate([clean, adversarial[fooled]])
    found = TSNE(perplexity=min(30, len(both) / 4), random_state=0).fit_transform(both)
    row = {
        "accuracy": float(right.mean()),
        "first direction": first_direction(clean, labels),
        "attacked": int(right[:ATTACKED].sum()),
        "fooled": int(fooled.sum()),
        "classes": [str(name) for name in test.class_names or range(test.num_classes)],
        "training": files.read_json(run / "training.json")["provenance"],
    }
    placed = {"clean": found[: len(clean)], "adversarial": found[len(clean) :]}
    points = {f"{name} {part}": place.astype(np.float16) for part, place in placed.items()}
    return row, points | {"labels": labels.astype(np.uint8)}


def first_direction(features: np.ndarray, labels: np.ndarray) -> float:
    """The share of a class's variance along its first principal component, the median."""
    shares = []
    for k in np.unique(labels):
        z = features[labels == k]
        sizes = np.linalg.svd(z - z.mean(0), compute_uv=False) ** 2
        shares.append(sizes[0] / sizes.sum())
    return float(np.median(shares))


def draw(results: dict[str, Any], png: Path) -> None:
    """A panel a net: a colour a class, and crosses for images under C&W that fool the net."""
    points, nets = results["arrays"], results["nets"]
    labels = points["labels"]
    with report.figure(png, len(nets), 1, (5.0, 4.4)) as axes:
        for ax, (name, row) in zip(axes, nets.items(), strict=True):
            clean = points[f"{name} clean"].astype(float)
            for k, title in enumerate(row["classes"]):
                own = clean[labels == k]
                ax.scatter(*own.T, color=CLASS_COLORS[k], s=8, linewidths=0, label=title)
            crosses = points[f"{name} adversarial"].astype(float).T
            look = {"markersize": 4, "markeredgewidth": 0.8}
            ax.plot(*crosses, "kx", label="changed by C&W,\nmisclassified", **look)
            ax.set(title=f"{name}, accuracy {100 * row['accuracy']:.1f} %", xticks=[], yticks=[])
            ax.set(xlabel="first coordinate of t-SNE", ylabel="second coordinate of t-SNE")
        handles = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(*handles, loc="outside right center", markerscale=2)


def main(options: argparse.Namespace) -> None:
    """Train and measure what is missing, and draw."""
    compare(options, NETS, measure, draw)


if __name__ == "__main__":
    launch(main, scaled(__doc__, SCALES), "rce_features", draw)
