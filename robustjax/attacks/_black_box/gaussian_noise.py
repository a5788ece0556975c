"""Gaussian noise: the corruption that any attack should beat."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._black_box.candidates import Candidates
from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks.targets import Target, TrueLabel
from robustjax.config import config, number, static
from robustjax.losses import margin
from robustjax.typing import Loss


@config
class GaussianNoise(Candidates):
    """clip(x + sigma N(0, I), 0, 1): the first of `draws` draws that succeeds, else the worst.

    One draw is the corruption itself; more measure its worst case. There is no threat model: the
    noise has no bound in any norm.

    Args:
      sigma: standard deviation, for pixels in [0, 1].
      draws: the largest number of draws, a query each; may be traced.
      loss: (output, target) -> scalar, largest for the worst draw when none succeeds.
      target: which class to leave or to reach when the caller gives none: `attacks.targets`.
      success: (output, y) -> bool.

    Guarantees:
      The result lies in [0, 1].

    Two pixels that are the logits, and so close to each other that some noise swaps them:

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack = rj.attacks.GaussianNoise(sigma=0.1, draws=100)
    >>> int(jnp.argmax(attack(jnp.ravel, jax.random.key(0), x, 0)))
    1
    """

    sigma: float = number(default=0.05)
    draws: int = number(default=1, low=1)
    loss: Loss = static(default=margin)
    target: Target = TrueLabel()
    success: Success = static(default=fooled)

    @property
    @override
    def count(self) -> int | jax.Array:
        return self.draws

    @override
    def candidate(self, example: Example, k: jax.Array) -> jax.Array:
        x = example.x
        noise = jax.random.normal(jax.random.fold_in(example.key, k), x.shape, x.dtype)
        return jnp.clip(x + self.sigma * noise, 0, 1)
