"""Bayesian uncertainty: how much the prediction varies over draws of a randomised model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from robustjax.attacks._core.randomized import Randomized, redraw
from robustjax.attacks._engine.inputs import Examples
from robustjax.config import config, number
from robustjax.detection.detector import Detector
from robustjax.deterministic import log_probabilities, ordered_sum
from robustjax.outputs import drawn_of
from robustjax.typing import LogitsFn


@config
class Uncertainty(Detector):
    """-sum_i Var_t F_i(x; key_t) over draws t of the model, such as dropout left on.

    A model whose output has an entry 'drawn', as that of `models.with_dropout`, predicts by its
    'logits', which no draw changes. The draws hang on the key that the model holds, and are the
    same for every image, so that the score is a function of the image; give the
    `attacks.Randomized` another key for other draws.

    Args:
      draws: T.

    References: Feinman et al., "Detecting adversarial samples from artifacts", 2017, Sec. 4.2 and
    code (50 draws; its mean over the classes instead of their sum is 1/K of this).

    Guarantees:
      Between -1 and 0, which it is where all draws agree.
    """

    draws: int = number(default=50, low=2, static=True)

    def learn(self, model: Any, examples: Examples, batch_size: int) -> tuple:
        """Nothing, of a randomised model."""
        _randomized(model)
        return ()

    def statistics(self, learned: Any, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        """The total variance, negative."""
        keys = jax.random.split(jax.random.clone(_randomized(logits_fn).key), self.draws)

        def probabilities(key):
            return jnp.exp(log_probabilities(drawn_of(redraw(logits_fn, key)(x))))

        p = jax.vmap(probabilities)(keys)
        away = p - (ordered_sum(p) / self.draws)[None]
        return -ordered_sum(ordered_sum(away**2)) / self.draws


def _randomized(model: Any) -> Randomized:
    """The model, once it is known to have draws."""
    if not isinstance(model, Randomized):
        raise ValueError(
            "the uncertainty is over draws of the model; give an attacks.Randomized, such as "
            "attacks.Randomized(models.with_dropout(logits_fn))"
        )
    return model
