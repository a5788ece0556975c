"""Kernel density of the last features, in the class that the model predicts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from robustjax.attacks._engine.examples import Examples
from robustjax.attacks._engine.model import num_classes
from robustjax.config import config, number, static
from robustjax.detection.detector import Detector, collect
from robustjax.detection.distances import squared_distances
from robustjax.deterministic import log_sum_exp
from robustjax.outputs import features_of, logits_of
from robustjax.typing import LogitsFn


class Kernels(NamedTuple):
    """Kernel points (K, M, D) and their log-weights (K, M), -inf where a class has fewer than M."""

    points: np.ndarray | jax.Array
    log_weights: np.ndarray | jax.Array


@config
class KDensity(Detector):
    """log (1/M) sum_j exp(-||z - z_j||^2 / sigma2) over M features of the predicted class.

    The z_j are features of training images whose true label is the class predicted for z. The
    logarithm does not underflow; raw densities do, and their ties at 0 spoil the AUC.

    Args:
      sigma2: the squared width in exp(-r^2 / sigma2), 1/0.26 in the paper's code for the
        cross-entropy and 0.1/0.26 for the reverse one. `with_bandwidth` takes Feinman's instead.
      count: number of kernels per class, drawn at random from its images; None: all of them.
      seed: for the draw.

    References:
      Feinman et al., "Detecting adversarial samples from artifacts", 2017, Sec. 4.1.
      Pang et al., "Towards robust detection of adversarial examples", 2018, Sec. 3.2 and code.

    Guarantees:
      -r^2 / sigma2 for one kernel at the distance r.
      Finite at any distance whose square is finite.

    >>> def model(x):
    ...     flat = x.reshape(len(x), -1)
    ...     return {"logits": flat, "features": flat}
    >>> images = np.float32([0.9, 0.1, 0.8, 0.1, 0.1, 0.9]).reshape(3, 1, 1, 2)
    >>> fitted = rj.detection.KDensity(sigma2=0.01).fit(model, images, [0, 0, 1])
    >>> bool(fitted(images[0]) > fitted(jnp.ones((1, 1, 2))))
    True
    """

    sigma2: float = number(default=1 / 0.26, low=1e-12)
    count: int | None = number(default=1000, low=1, static=True)
    seed: int = static(default=0)

    @classmethod
    def with_bandwidth(cls, bandwidth: float, count: int | None = None, seed: int = 0) -> KDensity:
        """Feinman's convention, exp(-r^2 / (2 h^2)): 1.20 for MNIST, 0.26 for CIFAR-10, 1 for SVHN.

        His density, of all features of a class, has the constant factor (2 pi h^2)^(-D/2) too.
        """
        return cls(2 * bandwidth**2, count, seed)

    @override
    def learn(self, model: Any, examples: Examples, batch_size: int | None) -> Kernels:
        chosen = draw_by_class(examples.label, num_classes(model, examples), self.count, self.seed)
        features = collect(features_of, model, examples.image[np.concatenate(chosen)], batch_size)
        most, ends = max(map(len, chosen)), np.cumsum([len(rows) for rows in chosen])
        points = np.zeros((len(chosen), most, features.shape[-1]), np.float32)
        weights = np.full((len(chosen), most), -np.inf, np.float32)
        for k, own in enumerate(np.split(features, ends[:-1])):
            points[k, : len(own)], weights[k, : len(own)] = own, -np.log(len(own))
        return Kernels(points, weights)

    @override
    def statistics(self, learned: Kernels, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        output = logits_fn(x)
        predicted = jnp.argmax(logits_of(output))
        points, log_weights = jnp.asarray(learned.points), jnp.asarray(learned.log_weights)
        squares = squared_distances(features_of(output), points[predicted])
        return log_sum_exp(log_weights[predicted] - squares / self.sigma2)


def draw_by_class(
    labels: np.ndarray, classes: int, count: int | None, seed: int
) -> list[np.ndarray]:
    """The positions of `count` images of each class, or of all if there are fewer.

    Raises:
      ValueError: a class without an image.
    """
    rng, chosen = np.random.default_rng(seed), []
    for k in range(classes):
        rows = rng.permutation(np.flatnonzero(labels == k))[:count]
        if not rows.size:
            raise ValueError(f"there is no image of class {k}; fit with images of every class")
        chosen.append(np.sort(rows))
    return chosen
