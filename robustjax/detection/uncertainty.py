"""Bayesian uncertainty: the variance of the prediction over draws of a randomised model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.randomized import Randomized, redraw
from robustjax.attacks._engine.examples import Examples
from robustjax.config import config, number
from robustjax.detection.detector import Detector
from robustjax.deterministic import log_probabilities, ordered_sum
from robustjax.outputs import drawn_of
from robustjax.typing import LogitsFn


@config
class Uncertainty(Detector):
    """-sum_i Var_t F_i(x; key_t) over draws t of the model, such as dropout left on.

    If the output has an entry 'drawn', as that of `models.with_dropout` has, the draws are read
    from it, and the prediction from 'logits', which no draw changes. The draws depend on the
    model's key alone, so every image gets the same draws and the score is a function of the image;
    give the `attacks.Randomized` another key for other draws.

    Args:
      draws: T, their number.

    References: Feinman et al., "Detecting adversarial samples from artifacts", 2017, Sec. 4.2 and
    code (50 draws; its mean over the classes instead of their sum is 1/K of this).

    Guarantees:
      Between -1 and 0; 0 where all draws agree.

    >>> def noisy(weights, key, x):
    ...     return weights * x[:, 0, 0] + jax.random.normal(key, (2,))[None]
    >>> model = rj.attacks.Randomized(jax.tree_util.Partial(noisy, 9.0))
    >>> fitted = rj.detection.Uncertainty(draws=8).fit(model, np.zeros((2, 1, 1, 2)), [0, 1])
    >>> sure, unsure = jnp.array([[[1.0, 0.0]]]), jnp.array([[[0.5, 0.5]]])
    >>> bool(fitted(unsure) < fitted(sure) < 0)
    True
    """

    draws: int = number(default=50, low=2, static=True)

    @override
    def learn(self, model: Any, examples: Examples, batch_size: int | None) -> tuple:
        _randomized(model)
        return ()

    @override
    def statistics(self, learned: Any, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.clone(_randomized(logits_fn).key), self.draws)

        def probabilities(key):
            return jnp.exp(log_probabilities(drawn_of(redraw(logits_fn, key)(x))))

        p = jax.vmap(probabilities)(keys)
        away = p - (ordered_sum(p) / self.draws)[None]
        return -ordered_sum(ordered_sum(away**2)) / self.draws


def _randomized(model: Any) -> Randomized:
    """The model, if it has draws; else a ValueError."""
    if not isinstance(model, Randomized):
        raise ValueError(
            "the uncertainty is over draws of the model; give an attacks.Randomized, such as "
            "attacks.Randomized(models.with_dropout(logits_fn))"
        )
    return model
