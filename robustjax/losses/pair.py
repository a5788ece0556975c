"""Training losses on a clean and an adversarial output of one example: TRADES and MART."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from robustjax.checks import INF, check_finite, checked
from robustjax.losses.softmax import cross_entropy, kl
from robustjax.outputs import of_logits
from robustjax.typing import Loss


@functools.partial(of_logits, outputs=2)
@checked(
    clean="K>1",
    adversarial="K",
    beta=["", (0, INF), check_finite],
    target="< K | K",
    margin=[" | K", check_finite],
)
def trades(
    clean: jax.Array,
    adversarial: jax.Array,
    target: jax.Array,
    beta: float | jax.Array = 6.0,
    *,
    consistency: Loss = kl,
    margin: float | jax.Array = 0.0,
) -> jax.Array:
    """CE(z(x), t) + beta D(z(x_adv), z(x)); nothing is detached.

    Args:
      clean: the model's output on the image: logits (K,), or see `outputs.logits_of`.
      adversarial: the model's output on the adversarial image.
      target: a label () of an integer type, or a distribution (K,).
      beta: weight of the consistency term.
      consistency: D, a function of the adversarial and the clean logits.
      margin: subtracted from the clean logits in the cross-entropy, (K,) or a number; hypersphere
        embedding uses m one-hot(y).

    References: Zhang et al., "Theoretically principled trade-off", ICML 2019, Eq. 5.

    >>> z = jnp.array([2.0, 0.0])
    >>> float(trades(z, z, 0)) == float(cross_entropy(z, 0))
    True
    """
    natural = cross_entropy(clean - margin, target)
    return natural + beta * consistency(adversarial, clean)


@functools.partial(of_logits, outputs=2)
@checked(
    clean="K>1",
    adversarial="K",
    beta=["", (0, INF), check_finite],
    label="< K",
    target="K",
    margin=[" | K", check_finite],
)
def mart(
    clean: jax.Array,
    adversarial: jax.Array,
    label: jax.Array,
    beta: float | jax.Array = 6.0,
    *,
    target: jax.Array | None = None,
    margin: float | jax.Array = 0.0,
) -> jax.Array:
    """BCE(z(x_adv), y) + beta KL(p(x) || p(x_adv)) (1 - p_y(x)); nothing is detached.

    BCE(z, y) = CE(z, y) - log(1 - max_{k != y} p_k).

    Args:
      clean: the model's output on the image: logits (K,), or see `outputs.logits_of`.
      adversarial: the model's output on the adversarial image.
      label: () integer.
      beta: weight of the KL.
      target: a distribution (K,) for the cross-entropy in BCE; None: the label.
      margin: as in `trades`, but on the adversarial logits.

    References: Wang et al., "Improving adversarial robustness requires revisiting misclassified
      examples", ICLR 2020, Eq. 11. Their code adds small constants to the logarithms.

    >>> z = jnp.array([2.0, 0.0])
    >>> bool(mart(z, z, 0) > cross_entropy(z, 0))
    True
    """
    wanted = label if target is None else target
    boosted = cross_entropy(adversarial - margin, wanted) + boost(adversarial, label)
    doubt = 1 - jnp.exp(-cross_entropy(clean, label))
    return boosted + beta * kl(adversarial, clean) * doubt


def boost(logits: jax.Array, label: jax.Array) -> jax.Array:
    """-log(1 - max_{k != y} p_k) from logits (K,)."""
    classes = jnp.arange(logits.size)
    runner_up = jnp.where(classes == label, -jnp.inf, logits).argmax()
    others = jnp.where(classes == runner_up, -jnp.inf, logits)
    return jax.nn.logsumexp(logits) - jax.nn.logsumexp(others)
