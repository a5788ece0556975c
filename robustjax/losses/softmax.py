"""Losses on softmax logits, for one example: logits (K,) in, a scalar out.

Attacks maximise `loss(output, target)`; training minimises the same function.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from robustjax.checks import INF, check_finite, checked
from robustjax.config import config, number
from robustjax.losses.compared import compares_with, pair_of
from robustjax.outputs import float_logits, of_logits


@of_logits
@checked(logits="K>1", target="< K | K")
def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-sum_k t_k log softmax(logits)_k.

    Args:
      logits: (K,).
      target: a label () of an integer type, or a distribution (K,).

    >>> float(cross_entropy(jnp.array([0.0, 0.0]), 1))
    0.693...
    """
    log_p = log_softmax(logits)
    return -(log_p[target] if jnp.ndim(target) == 0 else jnp.sum(target * log_p))


def log_softmax(logits: jax.Array) -> jax.Array:
    """The logarithms of the probabilities, over the last axis (..., K).

    Guarantees:
      Where the softmax saturates it is one-hot, so the cross-entropy has no gradient there, in any
      compilation. (`jax.nn.log_softmax` may have rounding for one.)
    """
    below = _below_largest(logits)
    return below - jnp.log(jnp.sum(jnp.exp(below), -1, keepdims=True))


@jax.custom_jvp
def _below_largest(logits: jax.Array) -> jax.Array:
    """Logits minus the largest, which is exactly 0.

    A compiler that fuses the model's last product into this difference rounds the product once
    less than in the maximum, so the difference alone need not be 0. The derivative leaves out that
    of the maximum, which the softmax does not depend on.
    """
    largest = jnp.max(logits, -1, keepdims=True)
    return jnp.where(logits == largest, 0, logits - largest)


@_below_largest.defjvp
def _derivative(primals, tangents):
    return _below_largest(*primals), tangents[0]


def distribution(target: jax.Array, num_classes: int) -> jax.Array:
    """A label () as a one-hot distribution (K,); a distribution is returned unchanged."""
    return jax.nn.one_hot(target, num_classes) if jnp.ndim(target) == 0 else target


@compares_with("pair")
@of_logits
@checked(logits="K>1")
def multi_target(logits: jax.Array, target: Any) -> jax.Array:
    """log p_t, which leads towards class t; -log p_y, away from the label, if t is the label.

    Args:
      logits: (K,).
      target: (label y, class t), each () integer.

    References: Pang et al., "Bag of tricks for adversarial training", ICLR 2021, use_multitarget in
      their code.

    >>> logits = jnp.array([0.0, 0.0])
    >>> float(multi_target(logits, (0, 0))), float(multi_target(logits, (0, 1)))
    (0.693..., -0.693...)
    """
    label, aim = pair_of(target, logits.size)
    return jnp.where(aim == label, 1, -1) * cross_entropy(logits, aim)


@of_logits
@checked(logits="K>1", target="< K | K")
def rce(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-1/(K - 1) sum_{i != y} log softmax(-h)_i, the reverse cross-entropy of test logits h.

    The paper trains Z = -h so that all wrong classes have the same probability and the label has
    none; it classifies by softmax(-Z), which is then certain of the label. With h = -Z the sign
    appears only in this loss: predictions, attacks and detectors read the logits of such a model
    like any other's. A linear head needs no change: W and -W are equally likely initial weights,
    and decay alike.

    Args:
      logits: (K,), h.
      target: a label (), or a distribution t (K,), whose reverse is R = (1 - t) / (K - 1).

    References: Pang et al., "Towards robust detection of adversarial examples", 2018. Their code
      takes log(softmax), which underflows to -inf.

    Guarantees:
      At least log(K - 1) for a label, the limit for equal wrong logits far below the label's.
      The gradient is R - softmax(-h).

    >>> bool(rce(jnp.array([9.0, 0.0, 0.0]), 0) < rce(jnp.array([9.0, 1.0, 0.0]), 0))
    True
    """
    wrong = 1 - distribution(target, logits.size)
    return cross_entropy(-logits, wrong / (logits.size - 1))


@checked(cross_entropy="...", gamma=["", (0, INF), check_finite])
def focal(cross_entropy: jax.Array, gamma: float | jax.Array) -> jax.Array:
    """(1 - p)^gamma CE with p = exp(-CE): confident examples count less; gamma 0 is CE.

    References: Lin et al., "Focal loss for dense object detection", ICCV 2017, Eq. 4. (The code of
      "Bag of tricks" takes p from the wrong rows of its batch.)

    Guarantees:
      The gradient is finite even where the cross-entropy is 0.

    >>> float(focal(jnp.log(2.0), gamma=1.0)) == float(jnp.log(2.0)) / 2
    True
    """
    missing = 1 - jnp.exp(-cross_entropy)
    missing = jnp.where(missing > 0, missing, 1)  # 0^gamma has the derivative gamma / 0
    return missing**gamma * cross_entropy


@config
class TemperedCrossEntropy:
    """cross_entropy(logits / temperature, target), with a gradient where the softmax saturates.

    Two objects of the same temperature are equal and share one compilation.

    >>> float(TemperedCrossEntropy(100.0)(jnp.array([200.0, 0.0]), 0))
    0.126...
    """

    temperature: float = number(low=1e-6)

    def __call__(self, output: Any, target: jax.Array) -> jax.Array:
        """-> scalar."""
        return cross_entropy(float_logits(output) / self.temperature, target)


@compares_with("reference")
@of_logits
@checked(logits="K>1", reference_logits="K")
def kl(logits: jax.Array, reference_logits: jax.Array) -> jax.Array:
    """KL(softmax(reference_logits) || softmax(logits)), the regulariser of TRADES.

    Its gradient is exactly zero where both agree, so an attack on it needs a random start. Nothing
    is detached: in a training loss the gradient flows through both.

    References: Zhang et al., "Theoretically principled trade-off", 2019, Eq. 3.

    >>> logits = jnp.array([1.0, 0.0])
    >>> float(kl(logits, logits)), bool(kl(-logits, logits) > 0)
    (0.0, True)
    """
    reference = log_softmax(reference_logits)
    return jnp.sum(jnp.exp(reference) * (reference - log_softmax(logits)))


@of_logits
@checked(logits="K>1", target="< K | K")
def brier(logits: jax.Array, target: jax.Array) -> jax.Array:
    """||softmax(logits) - t||^2, the Brier score.

    Args:
      logits: (K,).
      target: a label () of an integer type, or a distribution (K,).

    >>> float(brier(jnp.array([0.0, 0.0]), 1))
    0.5
    """
    return jnp.sum((jnp.exp(log_softmax(logits)) - distribution(target, logits.size)) ** 2)


@compares_with("reference")
@checked(output="...", target="...")
def squared_error(output: jax.Array, target: jax.Array) -> jax.Array:
    """sum (output - target)^2 over all entries of two arrays of the same shape.

    >>> float(squared_error(jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0])))
    5.0
    """
    return jnp.sum((output - target) ** 2)


@checked(label="< num_classes | num_classes", num_classes=(2, INF), s=(0, 1))
def smooth(
    label: jax.Array,
    num_classes: int,
    s: float | jax.Array,
    over: Literal["wrong", "all"] = "wrong",
) -> jax.Array:
    """Label smoothing: a soft target (K,) for `cross_entropy`.

    Args:
      label: () integer, or a distribution (K,), whose classes are smoothed in proportion.
      num_classes: K >= 2.
      s: the mass taken from the label, in [0, 1].
      over: 'wrong' gives s / (K - 1) to every wrong class and 1 - s to the label; 'all' gives s / K
        to every other class and 1 - s + s / K to the label. Papers use both.

    >>> smooth(jnp.int32(0), 3, 0.25).tolist()
    [0.75, 0.125, 0.125]
    """
    hot = distribution(label, num_classes)
    spread = (1 - hot) / (num_classes - 1) if over == "wrong" else 1 / num_classes
    return (1 - s) * hot + s * spread
