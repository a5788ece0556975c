"""Local intrinsic dimensionality (LID) of every layer's activations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks._engine.inputs import Examples
from robustjax.config import config, number, static
from robustjax.detection.detector import Detector, collect
from robustjax.detection.distances import squared_distances
from robustjax.deterministic import largest, ordered_sum
from robustjax.outputs import layers_of
from robustjax.typing import LogitsFn

LARGEST = 1e4
"""What the dimension of an image is set to whose neighbours are all equally far away."""

SAME = 1e-3
"""A reference this near, relative to the activation's norm, is the image itself up to rounding.

Two programs round one image's activations unlike, in ten bits on some accelerators.
"""


@config
class LID(Detector):
    """-LID of every layer, LID = (1/k sum_i log(r_k / r_i))^-1 of the k nearest reference images.

    The references are minibatches of training images drawn once, in `fit`; the LID is the mean over
    them. In the authors' code an image is compared with the others of whatever minibatch it comes
    in, so that its score depends on its company; here it is a function of the image alone. Their
    code drops the nearest neighbour, which is the image itself; here a reference within a
    thousandth of the activation's norm is no neighbour, so that a training image scores as if it
    had not been drawn.

    Args:
      k: neighbours.
      references: images in a minibatch.
      minibatches: their number.
      seed: of the draw.

    References: Ma et al., "Characterizing adversarial subspaces using local intrinsic
    dimensionality", 2018, Eq. 4 and Algorithm 1.

    Guarantees:
      Finite, and between -1e4 and 0 in every layer.
      Scaling a layer's activations changes it by rounding only.
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

    def learn(self, model: Any, examples: Examples, batch_size: int) -> tuple[np.ndarray, ...]:
        """The references' activations, per layer (minibatches, references, D)."""
        count = self.minibatches * self.references
        if len(examples) < count:
            raise ValueError(f"LID needs {count} reference images, got {len(examples)}")
        drawn = np.random.default_rng(self.seed).permutation(len(examples))[:count]
        layers = collect(flat_layers, model, examples.image[drawn], batch_size)
        return tuple(a.reshape(self.minibatches, self.references, -1) for a in layers)

    def statistics(
        self, learned: tuple[jax.Array, ...], logits_fn: LogitsFn, x: jax.Array
    ) -> jax.Array:
        """(S,), one a layer."""
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

    Those that are at most `same` are left out.
    """
    # The largest stands for one left out: where it is among the k nearest it adds log 1.
    apart = jnp.where(squares > same, squares, jnp.maximum(largest(squares), 1e-30))
    nearest = -jax.lax.top_k(-apart, k)[0]
    mean = ordered_sum(jnp.log(nearest[-1]) - jnp.log(nearest)) / (2 * k)
    return 1 / jnp.maximum(mean, 1 / LARGEST)


def flat_layers(output: Any) -> tuple[jax.Array, ...]:
    """Every layer's activation, flat and float32."""
    return tuple(a.reshape(-1).astype(jnp.float32) for a in layers_of(output))
