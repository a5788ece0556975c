"""Feature squeezing: the change of the prediction when the image loses detail."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.bpda import bpda
from robustjax.config import config, number, static
from robustjax.detection.detector import Detector
from robustjax.deterministic import largest, log_probabilities, ordered_sum
from robustjax.outputs import float_logits
from robustjax.typing import LogitsFn


class Squeezer(Protocol):
    """An image (H, W, C) in [0, 1] -> the same image with less detail."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """(H, W, C) -> (H, W, C)."""
        ...


@config
class BitDepth:
    """Round every pixel to one of 2^bits levels; the gradient passes straight through (BPDA).

    >>> rj.detection.BitDepth(1)(jnp.array([0.2, 0.7])).tolist()
    [0.0, 1.0]
    """

    bits: int = number(default=5, low=1, high=16, static=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """round((2^bits - 1) x) / (2^bits - 1)."""
        top = 2**self.bits - 1
        return bpda(lambda x: jnp.round(top * x) / top)(x)


@config
class MedianSmoothing:
    """The median of a window of size x size pixels, per channel, with reflected edges.

    For an even number of pixels it is the upper of the two middle values, and an even window
    reaches one pixel further up and left, as in `scipy.ndimage.median_filter`, which the authors
    use.

    >>> rj.detection.MedianSmoothing(3)(jnp.eye(3)[..., None])[1, 1].tolist()
    [0.0]
    """

    size: int = number(default=2, low=1, static=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(H, W, C) -> (H, W, C)."""
        before = self.size // 2
        border = (before, self.size - 1 - before)
        wide = jnp.pad(x, (border, border, (0, 0)), mode="symmetric")
        height, width = x.shape[:2]
        views = [
            wide[i : i + height, j : j + width] for i in range(self.size) for j in range(self.size)
        ]
        return jnp.sort(jnp.stack(views), axis=0)[len(views) // 2]


@config
class NonLocalMeans:
    """sum_q w_q x_q / sum_q w_q of the pixels q in a window, w_q = exp(-d_q^2 / strength^2).

    d_q^2 is the mean squared difference between the patches around q and around the pixel itself,
    over their pixels and channels; edges are reflected. The authors use OpenCV, which works in Lab
    colours; this works in the colours of the image.

    Args:
      search: width of the window, in pixels.
      patch: width of a patch.
      strength: in pixels of [0, 1]; OpenCV's 2 is 2/255.

    References: Buades et al., "A non-local algorithm for image denoising", 2005, with a flat patch.

    Guarantees:
      Between the smallest and the largest pixel of the window, up to rounding.

    >>> squeeze = rj.detection.NonLocalMeans(search=3, patch=1, strength=1.0)
    >>> bool(0 < squeeze(jnp.eye(3)[..., None])[0, 1, 0] < 1)
    True
    """

    search: int = static(default=13)
    patch: int = static(default=3)
    strength: float = number(default=2 / 255, low=1e-6)

    def __post_init__(self):
        for name in ("search", "patch"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd, got {getattr(self, name)}")

    def __call__(self, x: jax.Array) -> jax.Array:
        """(H, W, C) -> (H, W, C)."""
        reach, edge = self.search // 2, self.patch // 2
        height, width, channels = x.shape
        wide = (height + 2 * edge, width + 2 * edge, channels)
        padded = jnp.pad(x, (*[(reach + edge,) * 2] * 2, (0, 0)), mode="symmetric")
        centre = padded[reach : reach + wide[0], reach : reach + wide[1]]

        def add(sums, shift):
            shown = jax.lax.dynamic_slice(padded, (*shift, 0), wide)
            squares = ordered_sum(jnp.moveaxis((shown - centre) ** 2, -1, 0))
            views = [
                squares[i : i + height, j : j + width]
                for i in range(self.patch)
                for j in range(self.patch)
            ]
            distance = ordered_sum(jnp.stack(views)) / (len(views) * channels)
            weight = jnp.exp(-distance / self.strength**2)[..., None]
            inner = shown[edge : edge + height, edge : edge + width]
            return (sums[0] + weight * inner, sums[1] + weight), None

        shifts = jnp.stack(jnp.divmod(jnp.arange(self.search**2), self.search), -1)
        none = jnp.zeros_like(x), jnp.zeros_like(x[..., :1])
        total, weights = jax.lax.scan(add, none, shifts)[0]
        return total / jnp.concatenate([weights] * channels, -1)


@config
class FeatureSqueezing(Detector):
    """-max_s ||softmax f(x) - softmax f(s(x))||_1 over the squeezers s.

    Args:
      squeezers: by default 5 bits and a median of 2 x 2. The paper takes 1 bit for MNIST, and for
        CIFAR-10 also `NonLocalMeans()`, which is slow: 169 shifts of the image.

    References: Xu et al., "Feature squeezing: detecting adversarial examples in deep neural
    networks", 2018, Eq. 3 and Sec. 5.

    Guarantees:
      Between -2 and 0; 0 where no squeezer changes the image.

    >>> detector = rj.detection.FeatureSqueezing((rj.detection.BitDepth(1),))
    >>> float(detector.statistics((), lambda x: x[0, 0], jnp.array([[[1.0, 0.0]]])))
    -0.0
    """

    reads_pixels = True
    squeezers: tuple[Squeezer, ...] = (BitDepth(), MedianSmoothing())

    @override
    def statistics(self, learned: Any, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        views = jnp.stack([x, *(squeeze(x) for squeeze in self.squeezers)])
        logits = jax.vmap(lambda v: float_logits(logits_fn(v)))(views)
        p, *others = jnp.exp(jax.vmap(log_probabilities)(logits))
        return -largest(jnp.stack([ordered_sum(jnp.abs(p - q)) for q in others]))
