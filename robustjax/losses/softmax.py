"""Losses on a softmax's logits, for one example: logits (K,) in, a scalar out.

Attacks maximise `loss(output, target)`; training minimises the same function.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from robustjax.config import config, number
from robustjax.losses.compared import compares_with, pair_of
from robustjax.outputs import float_logits, of_logits


@of_logits
def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-sum_k t_k log softmax(logits)_k. Grows as the target loses probability.

    Args:
      logits: (K,).
      target: a label () of an integer type, or a distribution (K,).
    """
    if jnp.ndim(target) == 0:
        return jax.nn.logsumexp(logits) - logits[target]
    return -jnp.sum(target * jax.nn.log_softmax(logits))


def distribution(target: jax.Array, num_classes: int) -> jax.Array:
    """A label () as a distribution (K,), one-hot; a distribution is what it is."""
    return jax.nn.one_hot(target, num_classes) if jnp.ndim(target) == 0 else target


@compares_with("pair")
@of_logits
def multi_target(logits: jax.Array, target: tuple[jax.Array, jax.Array]) -> jax.Array:
    """log p_t, towards class t; -log p_y where t is the label, away from it.

    Args:
      logits: (K,).
      target: (label y, class t), each () integer.

    References: Pang et al., "Bag of tricks for adversarial training", ICLR 2021, use_multitarget in
      their code.
    """
    label, aim = pair_of(target)
    return jnp.where(aim == label, 1, -1) * cross_entropy(logits, aim)


@of_logits
def rce(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-1/(K - 1) sum_{i != y} log softmax(-h)_i, the reverse cross-entropy of test logits h.

    The paper trains Z = -h, to give all wrong classes the same probability R_y, and nothing to the
    label; it classifies by softmax(-Z), which is then certain of the label. Written in h = -Z, the
    sign is in this line and nowhere else: a model of this loss predicts, and is attacked and
    inspected, by its logits as any other. It needs no head of its own, for a linear layer may be
    its own negative: it starts as likely from -W as from W, and decays alike.

    Args:
      logits: (K,), h.
      target: a label (), or a distribution t (K,), whose reverse is R = (1 - t) / (K - 1).

    References: Pang et al., "Towards robust detection of adversarial examples", 2018. Their code
      takes log(softmax), which underflows to -inf; for distributions it is the same.

    Guarantees:
      At least log(K - 1) for a label, where the wrong classes' logits are equal and the label's far
      above; the gradient is R - softmax(-h).
    """
    wrong = 1 - distribution(target, logits.size)
    return cross_entropy(-logits, wrong / (logits.size - 1))


def focal(cross_entropy: jax.Array, gamma: float | jax.Array) -> jax.Array:
    """(1 - p)^gamma CE, p = exp(-CE): examples that are right already count less; gamma 0 is CE.

    References: Lin et al., "Focal loss for dense object detection", ICCV 2017, Eq. 4. (The code of
      "Bag of tricks" takes p from the wrong rows of its batch.)

    Guarantees:
      The gradient is finite where the cross-entropy is 0, as that of a certain prediction is.
    """
    missing = 1 - jnp.exp(-cross_entropy)
    missing = jnp.where(missing > 0, missing, 1)  # 0^gamma has the derivative gamma / 0
    return missing**gamma * cross_entropy


@config
class TemperedCrossEntropy:
    """cross_entropy(logits / temperature, target): has a gradient where the softmax saturates.

    One with the same temperature is equal and compiles nothing anew.
    """

    temperature: float = number(low=1e-6)

    def __call__(self, output: Any, target: jax.Array) -> jax.Array:
        """-> scalar."""
        return cross_entropy(float_logits(output) / self.temperature, target)


@compares_with("reference")
@of_logits
def kl(logits: jax.Array, reference_logits: jax.Array) -> jax.Array:
    """KL(softmax(reference_logits) || softmax(logits)), the regulariser of TRADES.

    Its gradient is exactly zero where both agree, so an attack on it needs a random start. Nothing
    is detached: in a training loss the gradient flows through both.

    References: Zhang et al., "Theoretically principled trade-off", 2019, Eq. 3.
    """
    reference = jax.nn.log_softmax(reference_logits)
    return jnp.sum(jnp.exp(reference) * (reference - jax.nn.log_softmax(logits)))


@of_logits
def brier(logits: jax.Array, target: jax.Array) -> jax.Array:
    """||softmax(logits) - t||^2, the Brier score.

    Args:
      logits: (K,).
      target: a label () of an integer type, or a distribution (K,).
    """
    return jnp.sum((jax.nn.softmax(logits) - distribution(target, logits.size)) ** 2)


@compares_with("reference")
def squared_error(output: jax.Array, target: jax.Array) -> jax.Array:
    """sum (output - target)^2 over all entries of two arrays of one shape."""
    return jnp.sum((output - target) ** 2)


def smooth(
    label: jax.Array,
    num_classes: int,
    s: float | jax.Array,
    over: Literal["wrong", "all"] = "wrong",
) -> jax.Array:
    """Label smoothing: a soft target (K,) for `cross_entropy`.

    Args:
      label: () integer, or a distribution (K,), each class of which is smoothed by its share.
      num_classes: K >= 2.
      s: the mass taken from the label, in [0, 1].
      over: 'wrong' gives s / (K - 1) to every wrong class and 1 - s to the label; 'all' gives s / K
        to every class and 1 - s + s / K to the label. The papers differ, so say which.
    """
    if over not in ("wrong", "all"):
        raise ValueError(f"over must be 'wrong' or 'all', got {over!r}")
    hot = distribution(label, num_classes)
    spread = (1 - hot) / (num_classes - 1) if over == "wrong" else 1 / num_classes
    return (1 - s) * hot + s * spread
