"""Nets with their detectors, and what these make of adversarial images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from sklearn.decomposition import PCA

from robustjax import data, detection, models
from robustjax.detection.detector import collect
from robustjax.outputs import features_of, prediction

FALSE_REJECTION = 0.05
PLAIN = {
    name: detection.DETECTORS[name]
    for name in (
        *("confidence", "entropy", "non-me", "energy", "max-margin", "center-distance"),
        *("k-density", "mahalanobis", "lid", "squeezing", "reconstruction"),
    )
}
NAMES = (*PLAIN, "k-density (Feinman)")
TYPICAL = 5000
"""Training images that the median K-density of a class is taken over, the first ones."""
KEPT = ("auc", "tpr_at_fpr", "fpr", "accepted_wrong")
"""The fields of `detection.Rates` that are kept; fpr is at the threshold."""


class Net(NamedTuple):
    """A trained net and its detectors.

    Attributes:
      logits_fn: images -> logits, for attackers.
      layers_fn: images -> logits and layers, for detectors.
      fitted: detectors by name.
      thresholds: theirs, at a false-rejection rate of 5 % on validation images.
      medians: (K,), of the K-density of training images, class by class.
    """

    logits_fn: Partial
    layers_fn: Partial
    fitted: dict[str, detection.Fitted]
    thresholds: dict[str, float]
    medians: np.ndarray


class Seen(NamedTuple):
    """Predictions (N,) and scores (N,) by detector of N images."""

    predictions: np.ndarray
    scores: dict[str, np.ndarray]


def watch(run: Path, train: data.Dataset, validation: data.Dataset, sigma2: float) -> Net:
    """Fit every detector to a run's net, and choose the thresholds."""
    logits_fn, _, _ = models.load(run, weights="last")
    layers_fn = models.with_layers(logits_fn)
    fitted = {
        name: detector.fit(layers_fn, train.images, train.labels)
        for name, detector in detectors(train.images, sigma2).items()
    }
    thresholds = {
        name: detection.threshold_at(detection.scores(f, validation.images), FALSE_REJECTION)
        for name, f in fitted.items()
    }
    typical = train.head(TYPICAL)
    density = detection.scores(fitted["k-density"], typical.images)
    medians = [np.median(density[typical.labels == k]) for k in range(train.num_classes)]
    return Net(logits_fn, layers_fn, fitted, thresholds, np.array(medians))


def detectors(images: np.ndarray, sigma2: float) -> dict[str, detection.Detector]:
    """All that need no other net and no training; the autoencoder is a PCA."""
    grey = images.shape[-1] == 1
    squeezers = (detection.BitDepth(1 if grey else 5), detection.MedianSmoothing())
    return PLAIN | {
        "k-density": detection.KDensity(sigma2),
        "k-density (Feinman)": detection.KDensity.with_bandwidth(1.2 if grey else 0.26),
        "squeezing": detection.FeatureSqueezing(squeezers),
        "reconstruction": detection.ReconstructionError(principal_components(images)),
    }


def principal_components(images: np.ndarray) -> Partial:
    """The autoencoder that is linear: a projection onto an eighth of the components, at most 64."""
    flat = images.reshape(len(images), -1)[:5000] / np.float32(255)
    found = PCA(min(flat.shape[1] // 8, 64), random_state=0).fit(flat)
    return Partial(project, {"mean": found.mean_, "axes": found.components_})


def project(weights: dict[str, Any], images: Any) -> Any:
    """(B, H, W, C) -> its projection."""
    mean, axes = weights["mean"], weights["axes"]
    flat = images.reshape(len(images), -1) - mean[None]
    return (jnp.dot(jnp.dot(flat, axes.T), axes) + mean[None]).reshape(images.shape)


def see(net: Net, images: np.ndarray) -> Seen:
    """The predictions and scores of images, floats in [0, 1]."""
    scores = {name: detection.scores(fitted, images) for name, fitted in net.fitted.items()}
    return Seen(predictions(net, images), scores)


def predictions(net: Net, images: np.ndarray) -> np.ndarray:
    """The classes: (N,)."""
    return read(net, prediction, images)


def read(net: Net, reader: Any, images: np.ndarray) -> np.ndarray:
    """`reader(output)` of every image; see `robustjax.outputs`."""
    return collect(reader, net.layers_fn, images, None)


def judge(net: Net, labels: np.ndarray, clean: Seen, adversarial: Seen) -> dict[str, Any]:
    """The paper's protocol: {'accuracy', 'pairs', 'n', and by detector `KEPT`}; nan is None."""
    row: dict[str, Any] = {"accuracy": float(np.mean(adversarial.predictions == labels))}
    for name, threshold in net.thresholds.items():
        found = detection.rates(
            labels,
            clean.predictions,
            clean.scores[name],
            adversarial.predictions,
            adversarial.scores[name],
            threshold=threshold,
        )
        row |= {"pairs": found.pairs, "n": found.n}
        numbers = {part: getattr(found, part) for part in KEPT}
        row[name] = {k: None if np.isnan(v) else round(v, 4) for k, v in numbers.items()}
    return row


def rms(images: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The root of the mean squared change of each image, in pixels of [0, 1]: (N,)."""
    return np.sqrt(np.square(images - clean).mean((1, 2, 3)))


def features(net: Net, images: np.ndarray) -> np.ndarray:
    """The last layer before the logits: (N, D)."""
    return read(net, features_of, images)
