"""BEYOND: whether an image and its augmented neighbours have one label and similar features."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from typing_extensions import override

from robustjax.attacks._engine.examples import Examples
from robustjax.attacks._engine.model import one_example
from robustjax.config import config, number, static
from robustjax.detection.detector import Detector
from robustjax.deterministic import log_probabilities, ordered_sum
from robustjax.outputs import features_of, float_logits, logits_of
from robustjax.typing import LogitsFn


@config
class Neighbors(Detector):
    """(mean_i G_yhat(x_i), mean_i cos(g(x), g(x_i))) over neighbours x_i of the image x.

    yhat is the class that the classifier predicts for x; G are the probabilities and g the features
    of an encoder. A neighbour is the image moved by a few pixels (the edge is repeated), with
    another contrast and with noise. The draws are the same for every image, so the score is a
    function of the image alone.

    The paper's encoder is trained without labels (SimSiam) and has a linear head of its own; it
    makes 50 neighbours by crops, flips and colours, and counts those with another label and those
    whose cosine is below a threshold. Here both parts are means, so that they have gradients.

    Args:
      encoder: a `jax.tree_util.Partial` of (weights, images (B, H, W, C)) -> {'logits', 'features'}
        with the classes of the classifier; None: the classifier itself.
      count: number of neighbours.
      shift: the largest move along each axis, in pixels.
      contrast: (x - 1/2) is multiplied by a number within 1 +- this.
      noise: standard deviation, pixels in [0, 1].
      seed: for the draws.

    References: He et al., "Be your own neighborhood: detecting adversarial examples by the
    neighborhood relations built on self-supervised learning", 2024.

    Guarantees:
      Between 0 and 1, and between -1 and 1; both 1 where every neighbour is the image itself and
      the encoder is certain of yhat.

    >>> def model(x):
    ...     return {"logits": 90 * x[:, 0, 0], "features": x[:, 0, 0]}
    >>> images = np.float32([0.75, 0.25, 0.25, 0.75]).reshape(2, 1, 1, 2)
    >>> alone = rj.detection.Neighbors(shift=0, contrast=0.0, noise=0.0)
    >>> np.round(alone.fit(model, images, [0, 1]).statistics(images[0]), 3).tolist()
    [1.0, 1.0]
    """

    reads_pixels = True
    encoder: Partial | None = None
    count: int = number(default=8, low=1, static=True)
    shift: int = number(default=2, low=0, static=True)
    contrast: float = number(default=0.2, high=1.0)
    noise: float = number(default=0.05)
    seed: int = static(default=0)

    @override
    def learn(self, model: Any, examples: Examples, batch_size: int | None) -> Partial | None:
        return self.encoder

    @override
    def statistics(self, learned: Partial | None, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        encoder = logits_fn if learned is None else one_example(learned)
        own, predicted = encoder(x), jnp.argmax(logits_of(logits_fn(x)))

        def compare(neighbor):
            output = encoder(neighbor)
            p = jnp.exp(log_probabilities(float_logits(output))[predicted])
            return jnp.stack([p, cosine(features_of(own), features_of(output))])

        return ordered_sum(jax.vmap(compare)(self.neighbors(x))) / self.count

    def neighbors(self, x: jax.Array) -> jax.Array:
        """(H, W, C) -> (count, H, W, C), in [0, 1]."""
        moves, scales, noises = jax.random.split(jax.random.key(self.seed), 3)
        moved = jax.random.randint(moves, (self.count, 2), 0, 2 * self.shift + 1)
        scale = 1 + self.contrast * jax.random.uniform(scales, (self.count,), minval=-1)
        noise = self.noise * jax.random.normal(noises, (self.count, *x.shape))
        wide = jnp.pad(x, ((self.shift,) * 2, (self.shift,) * 2, (0, 0)), mode="edge")

        def neighbor(move, scale, noise):
            shown = jax.lax.dynamic_slice(wide, (*move, 0), x.shape)
            return jnp.clip(0.5 + scale * (shown - 0.5) + noise, 0, 1)

        return jax.vmap(neighbor)(moved, scale, noise)


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """The cosine of the angle between (D,) and (D,); 0 if one of them is zero.

    >>> float(cosine(jnp.array([3.0, 4.0]), jnp.array([6.0, 8.0])))
    1.0
    """
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    squares = ordered_sum(a**2) * ordered_sum(b**2)
    return ordered_sum(a * b) * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))
