"""Layer inconsistency: whether the last layer still tells what the layers before it held."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from robustjax.attacks._engine.examples import Examples
from robustjax.config import config, number
from robustjax.detection.detector import Detector, collect
from robustjax.detection.gaussian import pooled_layers
from robustjax.deterministic import ordered_sum
from robustjax.typing import LogitsFn


class Recovery(NamedTuple):
    """A linear map from the last layer f to another one, and the error that is usual.

    Attributes:
      weights: (D, F).
      bias: (D,).
      usual: () the mean of ||weights f + bias - h||^2 over the training images.
    """

    weights: np.ndarray | jax.Array
    bias: np.ndarray | jax.Array
    usual: np.ndarray | jax.Array


@config
class LayerInconsistency(Detector):
    """-||A_l f + b_l - h_l||^2 / usual_l for every layer l but the last.

    h_l is the layer's mean over space, f the last layer's, and A_l, b_l the ridge regression from f
    to h_l on training images; usual_l is its mean squared error there. Clean images score about -1
    in every layer. An attack that moves the last layer far and an early one little, or the other
    way round, breaks the relation between them.

    This is the paper's recovery test with linear maps; its own are networks of four layers, and it
    also tests how far learned masks move the logits. Both parts of it need normal images only.

    Args:
      ridge: the penalty on A_l, in units of the mean variance of f's entries.

    References: Yun et al., "A few large shifts: layer-inconsistency based minimal overhead
    adversarial example detection", 2025: Recovery Testing.

    Guarantees:
      The mean over the training images is -1 in every layer.
      Shifting the activations of a layer changes it by rounding only.

    >>> def model(x):
    ...     flat = x.reshape(len(x), -1)
    ...     return {"logits": flat, "features": (flat, flat[:, :1])}
    >>> images = np.float32([0.9, 0.8, 0.2, 0.1, 0.5, 0.6]).reshape(3, 1, 1, 2)
    >>> fitted = rj.detection.LayerInconsistency().fit(model, images, [0, 0, 1])
    >>> bool(fitted(images[0]) > fitted(jnp.array([[[0.9, 0.1]]])))
    True
    """

    ridge: float = number(default=1e-3, low=1e-9)

    @override
    def learn(self, model: Any, examples: Examples, batch_size: int | None) -> tuple[Recovery, ...]:
        *early, last = collect(pooled_layers, model, examples.image, batch_size)
        if not early:
            raise ValueError(
                "there is one layer only, and this detector compares layers: let the model return "
                "several as 'features' (see models.with_layers)"
            )
        return tuple(regress(last, layer, self.ridge) for layer in early)

    @override
    def statistics(
        self, learned: tuple[Recovery, ...], logits_fn: LogitsFn, x: jax.Array
    ) -> jax.Array:
        *early, last = pooled_layers(logits_fn(x))
        pairs = zip(learned, early, strict=True)
        return jnp.stack([-error(recovery, last, layer) for recovery, layer in pairs])


def error(recovery: Recovery, last: jax.Array, layer: jax.Array) -> jax.Array:
    """The squared error of one recovery (F,) -> (D,), in units of what is usual."""
    # Full float32: on GPUs and TPUs a product is otherwise rounded to about 10 bits.
    guess = jnp.dot(recovery.weights, last, precision=jax.lax.Precision.HIGHEST) + recovery.bias
    return ordered_sum((guess - layer) ** 2) / recovery.usual


def regress(last: np.ndarray, layer: np.ndarray, ridge: float) -> Recovery:
    """The ridge regression from (N, F) to (N, D).

    Raises:
      ValueError: the last layer does not vary, or the other one is recovered without any error.
    """
    last, layer = last.astype(np.float64), layer.astype(np.float64)
    means = last.mean(0), layer.mean(0)
    x, y = last - means[0], layer - means[1]
    variance = np.square(x).mean()
    if not variance:
        raise ValueError("the last layer is the same for all images; fit with more images")
    inner = x.T @ x / len(x) + ridge * variance * np.eye(x.shape[1])
    weights = np.linalg.solve(inner, x.T @ y / len(x)).T
    usual = np.square(x @ weights.T - y).sum(1).mean()
    if usual <= 1e-12 * np.square(y).sum(1).mean():
        raise ValueError("a layer follows from the last one exactly; leave it out of 'features'")
    parts = weights, means[1] - weights @ means[0], usual
    return Recovery(*(np.asarray(part, np.float32) for part in parts))
