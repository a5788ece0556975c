"""Local intrinsic dimensionality (LID) of every layer's activations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from robustjax.attacks._engine.examples import Examples
from robustjax.config import config, number, static
from robustjax.detection.detector import Detector, collect
from robustjax.detection.distances import squared_distances
from robustjax.deterministic import largest, ordered_sum
from robustjax.outputs import layers_of
from robustjax.typing import LogitsFn

LARGEST = 1e4
"""The dimension given to an image whose neighbours are all equally far away."""

SAME = 1e-3
"""A reference this near, relative to the activation's norm, counts as the image itself.

Two programs may round the same image's activations differently, on some accelerators to ten bits.
"""


@config
class LID(Detector):
    """-LID of every layer, LID = (1/k sum_i log(r_k / r_i))^-1 of the k nearest reference images.

    `fit` draws the references once: minibatches of training images, over which the LID is averaged.
    The authors' code compares an image with the rest of its own minibatch, so its score depends on
    the other images; here it is a function of the image alone. Their code drops the nearest
    neighbour, which is the image itself; here a reference within a thousandth of the activation's
    norm does not count, so a training image scores as if it had not been drawn.

    Args:
      k: number of neighbours.
      references: number of images in a minibatch.
      minibatches: number of minibatches.
      seed: for the draw.

    References: Ma et al., "Characterizing adversarial subspaces using local intrinsic
    dimensionality", 2018, Eq. 4 and Algorithm 1.

    Guarantees:
      Finite, and between -1e4 and 0 in every layer.
      Scaling a layer's activations changes it by rounding only.

    >>> def model(x):
    ...     flat = x.reshape(len(x), -1)
    ...     return {"logits": flat, "features": flat}
    >>> images = np.random.default_rng(0).random((8, 1, 1, 2))
    >>> fitted = rj.detection.LID(k=3, references=8).fit(model, images, np.arange(8) % 2)
    >>> bool(-1e4 <= fitted(jnp.full((1, 1, 2), 0.5)) < 0)
    True
    """

    k: int = number(default=20, low=2, static=True)
    references: int = static(default=100)
    minibatches: int = number(default=1, low=1, static=True)
    seed: int = static(default=0)

    def __post_init__(self):
        if self.references <= self.k:
            raise ValueError(
                f"{self.k} neighbours need more than {self.k} references, got {self.references}"
            )

    @override
    def learn(
        self, model: Any, examples: Examples, batch_size: int | None
    ) -> tuple[np.ndarray, ...]:
        count = self.minibatches * self.references
        if len(examples) < count:
            raise ValueError(f"LID needs {count} reference images, got {len(examples)}")
        drawn = np.random.default_rng(self.seed).permutation(len(examples))[:count]
        layers = collect(flat_layers, model, examples.image[drawn], batch_size)
        return tuple(a.reshape(self.minibatches, self.references, -1) for a in layers)

    @override
    def statistics(
        self, learned: tuple[jax.Array, ...], logits_fn: LogitsFn, x: jax.Array
    ) -> jax.Array:
        layers = flat_layers(logits_fn(x))
        return -jnp.stack([self.dimension(r, a) for r, a in zip(learned, layers, strict=True)])

    def dimension(self, references: jax.Array, a: jax.Array) -> jax.Array:
        """The LID of an activation (D,), a mean over minibatches (minibatches, references, D)."""
        same = SAME**2 * ordered_sum(jax.lax.stop_gradient(a) ** 2)
        minibatches = [
            lid(squared_distances(a, jnp.asarray(points)), self.k, same) for points in references
        ]
        return ordered_sum(jnp.stack(minibatches)) / self.minibatches


def lid(squares: jax.Array, k: int, same: jax.Array | float = 0.0) -> jax.Array:
    """The maximum-likelihood estimate from squared distances (n,), at most `LARGEST`.

    Distances of at most `same` are left out.
    """
    # The largest stands for one left out: where it is among the k nearest it adds log 1.
    apart = jnp.where(squares > same, squares, jnp.maximum(largest(squares), 1e-30))
    nearest = -jax.lax.top_k(-apart, k)[0]
    mean = ordered_sum(jnp.log(nearest[-1]) - jnp.log(nearest)) / (2 * k)
    return 1 / jnp.maximum(mean, 1 / LARGEST)


def flat_layers(output: Any) -> tuple[jax.Array, ...]:
    """Every layer's activation, flat and float32."""
    return tuple(a.reshape(-1).astype(jnp.float32) for a in layers_of(output))
