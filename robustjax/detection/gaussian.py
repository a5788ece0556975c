"""Mahalanobis distance to the nearest class mean, layer by layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from robustjax.attacks._engine.examples import Examples
from robustjax.attacks._engine.model import num_classes
from robustjax.config import config
from robustjax.detection.detector import Detector, collect
from robustjax.detection.distances import squared_distances
from robustjax.deterministic import largest, ordered_sum
from robustjax.outputs import layers_of
from robustjax.typing import LogitsFn

NEGLIGIBLE = 1e-12
"""Directions with less variance, relative to the largest, are rounding of float32."""


class Gaussian(NamedTuple):
    """The Gaussian of one layer's pooled activation f.

    Attributes:
      mean: (D,), of f over all images.
      whitening: (R, D), W with W^T W the inverse covariance, R its rank.
      centers: (K, R), W (mu_k - mean).
    """

    mean: np.ndarray | jax.Array
    whitening: np.ndarray | jax.Array
    centers: np.ndarray | jax.Array


@config
class Mahalanobis(Detector):
    """max_k -(f - mu_k)^T Sigma^-1 (f - mu_k) / 2 of every layer, f its mean over space.

    The mu_k are the class means, and Sigma is the covariance around them, one for all classes; if
    it is singular, Sigma^-1 is the pseudo-inverse. There is one statistic per layer; the paper
    weights them by a logistic regression, `combine`. It also moves the input by a small gradient
    step first, which is left out: the paper chooses the size of that step on attacked images.

    References: Lee et al., "A simple unified framework for detecting out-of-distribution samples
    and adversarial attacks", 2018, Eq. 1 and 2 and code (the factor 1/2).

    Guarantees:
      Zero at a class mean and negative elsewhere.
      Invertible linear maps of the features change it by rounding only.

    >>> def model(x):
    ...     flat = x.reshape(len(x), -1)
    ...     return {"logits": flat, "features": flat}
    >>> images = np.float32([0.9, 0.2, 0.8, 0.1, 0.2, 0.9, 0.1, 0.7]).reshape(4, 1, 1, 2)
    >>> fitted = rj.detection.Mahalanobis().fit(model, images, [0, 0, 1, 1])
    >>> bool(fitted(images[0]) > fitted(jnp.ones((1, 1, 2))))
    True
    """

    @override
    def learn(self, model: Any, examples: Examples, batch_size: int | None) -> tuple[Gaussian, ...]:
        classes = num_classes(model, examples)
        layers = collect(pooled_layers, model, examples.image, batch_size)
        return tuple(fit_gaussian(layer, examples.label, classes) for layer in layers)

    @override
    def statistics(
        self, learned: tuple[Gaussian, ...], logits_fn: LogitsFn, x: jax.Array
    ) -> jax.Array:
        layers = pooled_layers(logits_fn(x))
        return jnp.stack([log_density(g, f) for g, f in zip(learned, layers, strict=True)])


def log_density(gaussian: Gaussian, f: jax.Array) -> jax.Array:
    """max_k -||W (f - mu_k)||^2 / 2 of one layer."""
    # Full float32: on GPUs and TPUs a product is otherwise rounded to about 10 bits.
    z = jnp.dot(gaussian.whitening, f - gaussian.mean, precision=jax.lax.Precision.HIGHEST)
    return largest(-squared_distances(z, jnp.asarray(gaussian.centers))) / 2


def pooled_layers(output: Any) -> tuple[jax.Array, ...]:
    """Every layer's mean over space: (H, W, C) -> (C,); a layer (D,) stays as it is."""

    def pool(a):
        flat = a.reshape(-1, a.shape[-1]).astype(jnp.float32)
        return ordered_sum(flat) / len(flat)

    return tuple(map(pool, layers_of(output)))


def fit_gaussian(features: np.ndarray, labels: np.ndarray, classes: int) -> Gaussian:
    """Class means and the tied covariance of features (N, D), divided by N.

    Raises:
      ValueError: a class without an image, or features that do not vary within any class.
    """
    features = features.astype(np.float64)
    if absent := sorted(set(range(classes)) - set(labels.tolist())):
        raise ValueError(f"there is no image of class {absent[0]}; fit with images of every class")
    means = np.stack([features[labels == k].mean(0) for k in range(classes)])
    residual = features - means[labels]
    variance, axes = np.linalg.eigh(residual.T @ residual / len(features))
    kept = variance > NEGLIGIBLE * np.square(features).mean(0).max()
    if not kept.any():
        raise ValueError("the features do not vary within any class; fit with more images")
    whitening = axes[:, kept].T / np.sqrt(variance[kept])[:, None]
    mean = features.mean(0)
    parts = mean, whitening, (means - mean) @ whitening.T
    return Gaussian(*(part.astype(np.float32) for part in parts))
