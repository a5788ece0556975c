"""MagNet: the error with which an autoencoder of normal images reconstructs an image."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from typing_extensions import override

from robustjax.attacks._engine.examples import Examples
from robustjax.attacks._engine.model import one_example
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
      autoencoder: an `Autoencoder`, which `fit` trains on its images, or a trained one: a
        `jax.tree_util.Partial` of (weights, images (B, H, W, C)) -> images.
      p: 1 or 2.

    References: Meng & Chen, "MagNet: a two-pronged defense against adversarial examples", 2017,
    Sec. 4.2.1.

    Guarantees:
      Zero where the reconstruction is exact, and negative elsewhere.

    >>> grey = jax.tree_util.Partial(lambda level, x: jnp.full_like(x, level), 0.5)
    >>> detector = rj.detection.ReconstructionError(grey)
    >>> float(detector.statistics(grey, None, jnp.array([[[0.5, 1.0]]])))
    -0.25
    """

    reads_pixels = True
    autoencoder: Autoencoder | Partial = Autoencoder()
    p: Literal[1, 2] = static(default=1)

    @override
    def learn(self, model: Any, examples: Examples, batch_size: int | None) -> Partial:
        return trained(self.autoencoder, examples)

    @override
    def statistics(self, learned: Partial, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        error = jnp.abs(x - one_example(learned)(x)) ** self.p
        return -ordered_sum(error.reshape(-1)) / x.size


@config
class ReconstructionDivergence(Detector):
    """-JSD(softmax(f(x) / T), softmax(f(AE(x)) / T)), the Jensen-Shannon divergence.

    Args:
      autoencoder: an `Autoencoder`, which `fit` trains on its images, or a trained one: a
        `jax.tree_util.Partial` of (weights, images (B, H, W, C)) -> images.
      temperature: T; the paper takes 10 and 40.

    References: Meng & Chen, "MagNet", 2017, Sec. 4.2.2.

    Guarantees:
      Between -log 2 and 0; 0 where the reconstruction is exact.

    >>> copy = jax.tree_util.Partial(lambda x: x)
    >>> detector = rj.detection.ReconstructionDivergence(copy)
    >>> float(abs(detector.statistics(copy, lambda x: x[0, 0], jnp.array([[[0.5, 1.0]]]))))
    0.0
    """

    reads_pixels = True
    autoencoder: Autoencoder | Partial = Autoencoder()
    temperature: float = number(default=10.0, low=1e-6)

    @override
    def learn(self, model: Any, examples: Examples, batch_size: int | None) -> Partial:
        return trained(self.autoencoder, examples)

    @override
    def statistics(self, learned: Partial, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        views = jnp.stack([x, one_example(learned)(x)])
        logits = jax.vmap(lambda v: float_logits(logits_fn(v)))(views)
        return -divergence(*jax.vmap(log_probabilities)(logits / self.temperature))


def divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """JSD = KL(P || M) / 2 + KL(Q || M) / 2 with M = (P + Q) / 2, of log-probabilities (K,)."""
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0)
    sides = jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m)
    return jnp.maximum(ordered_sum(sides) / 2, 0)


def trained(autoencoder: Autoencoder | Partial, examples: Examples) -> Partial:
    """The autoencoder, trained on these images unless it is trained already.

    Raises:
      ValueError: it makes images of another shape.
    """
    if isinstance(autoencoder, Autoencoder):
        return autoencoder.fit(examples.image)
    images = examples.image[:1]
    shape = jax.eval_shape(autoencoder, images).shape
    if shape != images.shape:
        raise ValueError(f"the autoencoder makes images {shape} of images {images.shape}")
    return autoencoder
