"""PID: how sure another network is of the class that the classifier predicts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from typing_extensions import override

from robustjax.attacks._engine.examples import Examples
from robustjax.attacks._engine.model import check_model, num_classes, one_example
from robustjax.config import config
from robustjax.detection.detector import Detector
from robustjax.deterministic import log_sum_exp
from robustjax.outputs import float_logits, logits_of
from robustjax.typing import LogitsFn


@config
class PredictionInconsistency(Detector):
    """log(G_yhat / (1 - G_yhat)), yhat the prediction and G the probabilities of another network.

    Adversarial images of one network often leave another one unsure of the wrong class, the more so
    if it was trained in another way. The log-odds order the images as the probability G_yhat does,
    without its ties at 1.

    Args:
      auxiliary: the other network, a `jax.tree_util.Partial` of (weights, images (B, H, W, C)) ->
        logits (B, K), such as `models.load` returns. The paper pairs a network trained naturally
        with one trained adversarially.

    References: Han et al., "Prediction inconsistency helps achieve generalizable detection of
    adversarial examples", 2025 (the detector that sees the label alone).

    Guarantees:
      With the classifier itself as `auxiliary` it is the score of `Confidence`.

    >>> auxiliary = jax.tree_util.Partial(lambda images: images[:, 0, 0, ::-1])
    >>> detector = rj.detection.PredictionInconsistency(auxiliary)
    >>> images = np.float32([0.75, 0.25, 0.5, 0.5]).reshape(2, 1, 1, 2)
    >>> fitted = detector.fit(lambda x: x[:, 0, 0], images, [0, 1])
    >>> float(fitted(images[0]))  # the other network sees class 1
    -0.5
    """

    auxiliary: Partial

    @override
    def learn(self, model: Any, examples: Examples, batch_size: int | None) -> Partial:
        placed = check_model(self.auxiliary, examples)
        classes = num_classes(model, examples), num_classes(placed, examples)
        if classes[0] != classes[1]:
            raise ValueError(
                f"auxiliary has {classes[1]} classes and the model has {classes[0]}; give a "
                "network of the same classes"
            )
        return placed

    @override
    def statistics(self, learned: Partial, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        predicted = jnp.argmax(logits_of(logits_fn(x)))
        logits = float_logits(one_example(learned)(x))
        apart = jnp.where(jnp.arange(logits.size) == predicted, -jnp.inf, logits)
        return logits[predicted] - log_sum_exp(apart)
