"""Losses for outputs that are not softmax logits: one logit, many labels, numbers, pixels.

Each has a success of the same kind in `robustjax.attacks.successes`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from robustjax.checks import checked, in_body
from robustjax.losses.softmax import log_softmax


@checked(output="...", target=in_body)
def binary_cross_entropy(output: jax.Array, target: jax.Array) -> jax.Array:
    """-t log sigmoid(z) - (1 - t) log sigmoid(-z), summed over all logits.

    Args:
      output: z, one logit () or (1,), or one per label (K,) of a multi-label problem.
      target: t, 0 or 1 or between, as many.

    >>> float(binary_cross_entropy(jnp.array(0.0), jnp.array(1)))
    0.693...
    """
    sign = 1 - 2 * _alike(output, target)
    return jnp.sum(jax.nn.softplus(sign * output))


@checked(output="...", target=in_body)
def binary_margin(output: jax.Array, target: jax.Array) -> jax.Array:
    """The largest of -z where t = 1 and z where t = 0: positive where a logit has the wrong sign.

    Args:
      output: z, one logit () or (1,), or one per label (K,) of a multi-label problem.
      target: t, 0 or 1, as many.

    >>> float(binary_margin(jnp.array([2.0, -0.5]), jnp.array([1, 1])))
    0.5
    """
    return jnp.max((1 - 2 * _alike(output, target)) * output)


@checked(output="...", target=in_body)
def absolute_error(output: jax.Array, target: jax.Array) -> jax.Array:
    """sum |output - target|, for regression: its gradient does not vanish where they are close.

    Where they are equal the gradient is that of output - target, so that an attack can leave.

    >>> output, target = jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])
    >>> jax.value_and_grad(absolute_error)(output, target)[1].tolist()
    [1.0, -1.0]
    """
    away = output - _alike(output, target)
    return jnp.sum(jnp.where(away >= 0, away, -away))


@checked(output="... K", target=in_body)
def pixel_cross_entropy(output: jax.Array, target: jax.Array) -> jax.Array:
    """The mean cross-entropy over pixels, for segmentation.

    Args:
      output: logits (H, W, K), or (..., K).
      target: classes (H, W) or (...), of an integer type.

    >>> float(pixel_cross_entropy(jnp.zeros((2, 2, 2)), jnp.zeros((2, 2), int)))
    0.693...
    """
    if jnp.shape(target) != output.shape[:-1]:
        raise ValueError(
            f"target must hold a class for each pixel, {output.shape[:-1]}, got the shape "
            f"{jnp.shape(target)}"
        )
    log_p = log_softmax(output)
    return -jnp.mean(jnp.take_along_axis(log_p, jnp.asarray(target)[..., None], -1))


def _alike(output: jax.Array, target: jax.Array) -> jax.Array:
    """The target in the shape of the output.

    Raises:
      ValueError: they have different numbers of entries.
    """
    if jnp.size(target) != jnp.size(output):
        raise ValueError(
            f"target must have a number for each output, {jnp.shape(output)}, got the shape "
            f"{jnp.shape(target)}"
        )
    return jnp.reshape(target, jnp.shape(output)).astype(jnp.result_type(output))
