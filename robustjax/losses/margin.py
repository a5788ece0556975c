"""Losses on differences of logits, for one example: logits (K,) in, a scalar out.

Attacks maximise them. `margin` and `dlr` are negative while the label wins. Unlike for the
cross-entropy, their gradient does not vanish when the model is confident.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from robustjax.checks import INF, checked
from robustjax.deterministic import largest
from robustjax.losses.compared import compares_with, pair_of
from robustjax.outputs import of_logits


@of_logits
@checked(logits="K>1", label="< K")
def best_wrong(logits: jax.Array, label: jax.Array) -> jax.Array:
    """max_{j != y} z_j: the logit of the best wrong class, whatever the label's logit.

    >>> float(best_wrong(jnp.array([3.0, 1.0, 2.0]), 0))
    2.0
    """
    return largest(jnp.where(jnp.arange(logits.size) == label, -jnp.inf, logits))


@of_logits
@checked(logits="K>1", label="< K")
def margin(logits: jax.Array, label: jax.Array) -> jax.Array:
    """max_{j != y} z_j - z_y: how far the best wrong class is ahead of the label.

    References: Carlini & Wagner, "Towards evaluating the robustness of neural networks", 2017, f_6.

    >>> float(margin(jnp.array([3.0, 1.0, 2.0]), 0))
    -1.0
    """
    return best_wrong(logits, label) - logits[label]


@of_logits
@checked(logits="K>1", label="< K")
def soft_margin(logits: jax.Array, label: jax.Array) -> jax.Array:
    """log sum_{j != y} exp z_j - z_y, a smooth margin: negative exactly where p_y > 1/2.

    References: Ding et al., "MMA training", 2020, Eq. 9.

    >>> logits = jnp.array([3.0, 1.0, 2.0])
    >>> bool(margin(logits, 0) < soft_margin(logits, 0) < 0)
    True
    """
    wrong = jnp.where(jnp.arange(logits.size) == label, -jnp.inf, logits)
    return jax.nn.logsumexp(wrong) - logits[label]


@of_logits
@checked(logits="K>1", label="< K", least=(0, INF))
def dlr(logits: jax.Array, label: jax.Array, least: float = 0.0) -> jax.Array:
    """(max_{j != y} z_j - z_y) / (z_(1) - z_(3)), with z_(1) >= z_(2) >= ... the sorted logits.

    The difference-of-logits ratio does not change when the logits are shifted or scaled. With two
    classes there is no third logit, so the margin itself is returned, which is shift-invariant but
    not scale-invariant. A logit of -inf, a class that is masked, does not count.

    Args:
      logits: (K,), K >= 2.
      label: () integer.
      least: a lower bound of the divisor. With 0 the gradient reaches 1e24 where the three largest
        logits tie, which is harmless in attacks that use its direction, but not in training.

    References: Croce & Hein, "Reliable evaluation of adversarial robustness", 2020, Eq. 6.

    >>> logits = jnp.array([3.0, 1.0, 2.0])
    >>> float(dlr(logits, 0)), float(dlr(10 * logits, 0))
    (-0.5, -0.5)
    """
    ahead = margin(logits, label)
    if logits.size < 3:
        return ahead
    z = jnp.sort(logits, descending=True)
    return _ratio(ahead, jnp.where(z[2] > -jnp.inf, jnp.maximum(z[0] - z[2], least), 1))


@compares_with("pair")
@of_logits
@checked(logits="K>1")
def targeted_dlr(logits: jax.Array, target: Any) -> jax.Array:
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2): how far class t is ahead of the label.

    With three classes above -inf the divisor is z_(1) - z_(3), with two it is 1 (see `dlr`).

    Args:
      logits: (K,), K >= 2.
      target: (label y, target class t), each () integer.

    References: Croce & Hein, "Reliable evaluation of adversarial robustness", 2020, Eq. 7.

    >>> float(targeted_dlr(jnp.array([4.0, 3.0, 2.0, 0.0]), (0, 2)))
    -0.666...
    """
    ahead = targeted_margin(logits, target)
    if logits.size < 3:
        return ahead
    z = jnp.sort(logits, descending=True)
    third, fourth = z[2], z[min(3, logits.size - 1)]
    fourth = jnp.where(fourth > -jnp.inf, fourth, third)
    return _ratio(ahead, jnp.where(third > -jnp.inf, z[0] - (third + fourth) / 2, 1))


@compares_with("pair")
@of_logits
@checked(logits="K>1")
def targeted_margin(logits: jax.Array, target: Any) -> jax.Array:
    """z_t - z_y: how far class t is ahead of the label.

    Args:
      logits: (K,).
      target: (label y, target class t), each () integer.

    References: Gowal et al., "An alternative surrogate loss for PGD-based testing", 2019.

    >>> float(targeted_margin(jnp.array([3.0, 1.0, 2.0]), (0, 2)))
    -1.0
    """
    label, aim = pair_of(target, logits.size)
    return logits[aim] - logits[label]


def _ratio(numerator: jax.Array, spread: jax.Array) -> jax.Array:
    """Divide by a spread that is zero for ties; the ratio and its gradient stay finite."""
    return numerator / jnp.maximum(spread, 1e-12 * jnp.maximum(jnp.abs(numerator), 1))
