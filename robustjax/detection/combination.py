"""Several statistics in one score, weighted by a logistic regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.checks import INF, checked, in_body
from robustjax.config import config
from robustjax.detection.detector import Fitted, over_images
from robustjax.deterministic import ordered_sum
from robustjax.lazy import Lazy

if TYPE_CHECKING:
    from sklearn import linear_model
else:
    linear_model = Lazy("sklearn.linear_model")


@config
class Combined:
    """bias + weights . (statistics - shift): the log-odds that an image is normal.

    Attributes:
      parts: the fitted detectors, whose statistics are concatenated.
      shift, weights: (S,).
      bias: ().

    >>> images = np.float32([0.75, 0.25, 0.5, 0.5]).reshape(2, 1, 1, 2)
    >>> part = rj.detection.MaxMargin().fit(lambda x: x[:, 0, 0], images, [0, 1])
    >>> numbers = jnp.zeros(1), jnp.array([4.0]), jnp.array(-1.0)  # shift, weights, bias
    >>> float(rj.detection.Combined((part,), *numbers)(images[0]))
    1.0
    """

    parts: tuple[Fitted, ...]
    shift: jax.Array
    weights: jax.Array
    bias: jax.Array

    @property
    def model(self) -> Callable:
        """The model of the first detector."""
        return self.parts[0].model

    def __call__(self, x: jax.Array) -> jax.Array:
        """Image (H, W, C) -> (), higher = more normal."""
        return self.bias + ordered_sum(self.weights * (joined(self.parts, x) - self.shift))


@checked(normal=in_body, adversarial=in_body, batch_size=(1, INF))
def combine(
    parts: Sequence[Fitted],
    normal: Any,
    adversarial: Any,
    *,
    batch_size: int | None = None,
) -> Combined:
    """Weight the statistics of detectors by a logistic regression between two sets of images.

    With one `Mahalanobis` or `LID` it weights the layers; with a density and an uncertainty it is
    the detector of Feinman et al. The result has seen an attack: evaluate it on other images, and
    on attacks that it has not seen.

    Args:
      parts: detectors fitted to one model.
      normal: (N, H, W, C) or inputs of another shape, clean ones and, in Ma et al. and Feinman et
        al., noisy ones.
      adversarial: (M, H, W, C).
      batch_size: images at once, all devices together.

    Guarantees:
      A statistic that is constant gets the weight 0.
      Scaling or shifting a statistic changes the score by rounding only.

    References: Ma et al., 2018, and its code: statistics scaled to [0, 1], L2 penalty 1/2 ||w||^2.

    >>> images = np.float32([0.75, 0.25, 0.5, 0.5]).reshape(2, 1, 1, 2)
    >>> part = rj.detection.MaxMargin().fit(lambda x: x[:, 0, 0], images, [0, 1])
    >>> combined = rj.detection.combine([part], normal=images[:1], adversarial=images[1:])
    >>> bool(combined(images[0]) > combined(images[1]))
    True
    """
    parts = tuple(parts)
    if not parts:
        raise ValueError("parts must hold a fitted detector at least")
    table = [over_images(joined, parts, images, batch_size) for images in (normal, adversarial)]
    is_normal = np.repeat([1, 0], [len(rows) for rows in table])
    statistics = np.concatenate(table).astype(np.float64)
    low, high = statistics.min(0), statistics.max(0)
    width = np.where(high > low, high - low, np.inf)
    found = linear_model.LogisticRegression(max_iter=10_000).fit(
        (statistics - low) / width, is_normal
    )
    line = low, found.coef_[0] / width, found.intercept_[0]
    return Combined(parts, *(jnp.asarray(number, jnp.float32) for number in line))


def joined(parts: tuple[Fitted, ...], x: jax.Array) -> jax.Array:
    """The statistics of all parts, concatenated: (S,)."""
    return jnp.concatenate([part.statistics(x) for part in parts])
