"""The generalised softmax cross-entropy (g-SCE): classifiers by the distance to class centers.

Every member of the family has the logits h_i(z) = -(z - mu_i)^T Sigma_i (z - mu_i) + B_i, and its
loss reads nothing else; so do its prediction and every attack on it. With Sigma = I / 2 and B = 0,
the Max-Mahalanobis heads, h_i = -1/2 ||z - mu_i||^2: the largest logit is the nearest center's.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import Precision

from robustjax.checks import INF, checked
from robustjax.deterministic import ordered_sum, spread
from robustjax.losses.softmax import TemperedCrossEntropy, cross_entropy
from robustjax.outputs import of_logits


@checked(z="D", centers="K D", precisions="K | K D | K D D", biases="K")
def gsce_logits(
    z: jax.Array, centers: jax.Array, precisions: jax.Array, biases: jax.Array
) -> jax.Array:
    """h_i = -(z - mu_i)^T Sigma_i (z - mu_i) + B_i, for one example.

    Computed from differences: ||z||^2 - 2 z.mu + ||mu||^2 loses digits to cancellation and can be
    negative.

    Args:
      z: (D,) features.
      centers: (K, D), mu.
      precisions: Sigma, positive: (K,) multiples of the identity, (K, D) diagonals or (K, D, D).
      biases: (K,), B.

    Returns:
      (K,).

    References: Pang et al., "Rethinking softmax cross-entropy loss", 2020.

    Guarantees:
      h = B exactly where z = mu, and h <= B everywhere.
      Under `jax.vmap` no bit of h, or of its gradient, depends on the batch, except for (K, D, D).

    >>> gsce_logits(jnp.zeros(2), jnp.eye(2), jnp.full(2, 0.5), jnp.zeros(2)).tolist()
    [-0.5, -0.5]
    """
    away = spread(z, len(centers)) - centers
    if precisions.ndim == 3:
        squares = jnp.einsum("ka,kab,kb->k", away, precisions, away, precision=Precision.HIGHEST)
    elif precisions.ndim == 2:
        squares = ordered_sum((precisions * away**2).T)
    else:
        squares = precisions * ordered_sum((away**2).T)
    return biases - squares


@checked(weights="K D", biases="K")
def sce_as_gsce(weights: jax.Array, biases: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Centers, precisions and biases whose logits are W z + b, up to the constant -||z||^2.

    mu_i = W_i / 2, Sigma_i = I, B_i = b_i + ||W_i||^2 / 4: the same softmax.

    Args:
      weights: (K, D), W; a Dense kernel transposed.
      biases: (K,), b.

    References: Pang et al., "Rethinking softmax cross-entropy loss", 2020.

    >>> centers, precisions, biases = sce_as_gsce(2 * jnp.eye(2), jnp.zeros(2))
    >>> gsce_logits(jnp.array([1.0, 0.0]), centers, precisions, biases).tolist()
    [1.0, -1.0]
    """
    return weights / 2, jnp.ones_like(biases), biases + jnp.sum(weights**2, -1) / 4


@of_logits
@checked(logits="K>1", target="< K | K")
def mmc(logits: jax.Array, target: jax.Array) -> jax.Array:
    """1/2 ||z - mu_y||^2, the Max-Mahalanobis center loss: -h_y, without softmax or other classes.

    Args:
      logits: -1/2 ||z - mu_i||^2, (K,), or a pytree that holds them.
      target: a label (), or a distribution (K,), over which the loss is averaged.

    References: Pang et al., "Rethinking softmax cross-entropy loss", 2020; the authors' code omits
      the 1/2.

    >>> float(mmc(jnp.array([-0.5, -2.0]), 1))
    2.0
    """
    return -(logits[target] if jnp.ndim(target) == 0 else jnp.sum(target * logits))


@of_logits
@checked(logits="K>1", target="< K | K", temperature=(1e-6, INF))
def mmlda(logits: jax.Array, target: jax.Array, temperature: float = 1.0) -> jax.Array:
    """-log softmax(h / T)_y, the Max-Mahalanobis linear discriminant analysis loss.

    For centers of equal norm and h_i = -1/2 ||z - mu_i||^2, the softmax is that of z.mu / T.

    Args:
      logits: (K,), or a pytree that holds them.
      target: a label (), or a distribution (K,).
      temperature: T; 1 in the paper, 1/2 in the authors' code, whose logits lack the 1/2.

    References: Pang et al., "Max-Mahalanobis linear discriminant analysis networks", 2018.

    >>> bool(mmlda(jnp.array([-0.5, -2.0]), 0) < mmlda(jnp.array([-0.5, -2.0]), 1))
    True
    """
    return TemperedCrossEntropy(temperature)(logits, target)


@of_logits
@checked(
    logits="K>1",
    target="< K | K",
    margin=(0, INF),
    weight=(0, INF),
    biases=" | K",
)
def lgm(
    logits: jax.Array,
    target: jax.Array,
    margin: float = 0.3,
    weight: float = 0.1,
    biases: jax.Array | float = 0.0,
) -> jax.Array:
    """-log softmax(h')_y - weight h_y, the large-margin Gaussian mixture loss.

    h' is h with the label's logit multiplied by 1 + margin, so that the squared distance to the
    label's center has to be that much smaller. The second term is the likelihood, up to constants.

    Args:
      logits: -1/2 ||z - mu_i||^2, (K,), or a pytree that holds them.
      target: a label (), or a distribution (K,), whose classes share the margin.
      margin: alpha >= 0.
      weight: lambda >= 0.
      biases: (K,), -1/2 log |Lambda_k| of trained covariances, which the logits hold and the margin
        does not multiply; 0 with unit covariances.

    References: Wan et al., "Rethinking feature distribution for loss functions in image
      classification", 2018, with equal priors, as in the authors' experiments.

    >>> logits = jnp.array([-0.5, -2.0])
    >>> bool(lgm(logits, 0) > cross_entropy(logits, 0))
    True
    """
    if jnp.ndim(target) == 0:
        target = jax.nn.one_hot(target, logits.size, dtype=logits.dtype)
    shifted = logits * (1 + margin * target) - margin * target * biases
    return cross_entropy(shifted, target) + weight * mmc(logits, target)


@checked(z="D", centers="K D", label="< K")
def center_pull(z: jax.Array, centers: jax.Array, label: jax.Array) -> jax.Array:
    """1/2 ||z - c_y||^2, the term that the center loss adds to the cross-entropy.

    Args:
      z: (D,) features.
      centers: (K, D), means of the training features; apply `stop_gradient` to them.
      label: () integer.

    References: Wen et al., "A discriminative feature learning approach for deep face recognition",
      2016, Eq. 2.

    >>> float(center_pull(jnp.zeros(2), jnp.eye(2), 0))
    0.5
    """
    return 0.5 * jnp.sum((z - centers[label]) ** 2)
