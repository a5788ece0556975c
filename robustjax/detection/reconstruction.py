"""MagNet: how badly an autoencoder of normal images reconstructs an image."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from robustjax.attacks._engine.inputs import Examples, one_example
from robustjax.config import config, number, static
from robustjax.detection.autoencoder import Autoencoder
from robustjax.detection.detector import Detector
from robustjax.deterministic import log_probabilities, ordered_sum
from robustjax.outputs import float_logits
from robustjax.typing import LogitsFn


@config
class ReconstructionError(Detector):
    """-mean |x - AE(x)|^p over the pixels.

    Args:
      autoencoder: an `Autoencoder`, which `fit` trains on the images that it is given, or one that
        has been trained: a `jax.tree_util.Partial` of (weights, images (B, H, W, C)) -> images.
      p: 1 or 2.

    References: Meng & Chen, "MagNet: a two-pronged defense against adversarial examples", 2017,
    Sec. 4.2.1.

    Guarantees:
      Zero where the reconstruction is exact, and negative elsewhere.
    """

    autoencoder: Autoencoder | Partial = Autoencoder()
    p: int = static(default=1)

    def __post_init__(self):
        if self.p not in (1, 2):
            raise ValueError(f"p must be 1 or 2, got {self.p!r}")

    def learn(self, model: Any, examples: Examples, batch_size: int) -> Partial:
        """The autoencoder."""
        return trained(self.autoencoder, examples)

    def statistics(self, learned: Partial, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        """The mean error, negative."""
        error = jnp.abs(x - one_example(learned)(x)) ** self.p
        return -ordered_sum(error.reshape(-1)) / x.size


@config
class ReconstructionDivergence(Detector):
    """-JSD(softmax(f(x) / T), softmax(f(AE(x)) / T)), the Jensen-Shannon divergence.

    Args:
      autoencoder: an `Autoencoder`, which `fit` trains on the images that it is given, or one that
        has been trained: a `jax.tree_util.Partial` of (weights, images (B, H, W, C)) -> images.
      temperature: T; the paper takes 10 and 40.

    References: Meng & Chen, "MagNet", 2017, Sec. 4.2.2.

    Guarantees:
      Between -log 2 and 0, which it is where the reconstruction is exact.
    """

    autoencoder: Autoencoder | Partial = Autoencoder()
    temperature: float = number(default=10.0, low=1e-6)

    def learn(self, model: Any, examples: Examples, batch_size: int) -> Partial:
        """The autoencoder."""
        return trained(self.autoencoder, examples)

    def statistics(self, learned: Partial, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        """The divergence, negative."""
        views = jnp.stack([x, one_example(learned)(x)])
        logits = jax.vmap(lambda v: float_logits(logits_fn(v)))(views)
        return -divergence(*jax.vmap(log_probabilities)(logits / self.temperature))


def divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """JSD = KL(P || M) / 2 + KL(Q || M) / 2 with M = (P + Q) / 2, of log-probabilities (K,)."""
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0)
    sides = jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m)
    return jnp.maximum(ordered_sum(sides) / 2, 0)


def trained(autoencoder: Autoencoder | Partial, examples: Examples) -> Partial:
    """The autoencoder, trained on these images unless it has been before.

    Raises:
      ValueError: it is neither, or its images have another shape.
    """
    if isinstance(autoencoder, Autoencoder):
        return autoencoder.fit(examples.image)
    if not isinstance(autoencoder, Partial):
        raise ValueError(
            "the autoencoder must be an Autoencoder or a jax.tree_util.Partial(function, weights), "
            "so that its weights are data"
        )
    images = examples.image[:1]
    shape = jax.eval_shape(autoencoder, images).shape
    if shape != images.shape:
        raise ValueError(f"the autoencoder makes images {shape} of images {images.shape}")
    return autoencoder
