"""Backward-pass differentiable approximation: one function forward, the gradient of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from robustjax.checks import checked


def identity(x: Any) -> Any:
    """x: the straight-through gradient, for a defence that changes its input little."""
    return x


@checked
def bpda(
    forward: Callable[[Any], Any], backward: Callable[[Any], Any] = identity
) -> Callable[[Any], Any]:
    """A function with the values of `forward` and the gradient of `backward`.

    For defences without a useful gradient: quantisation, JPEG, a lookup. Inside the model, as in
    `lambda x: logits(bpda(jpeg)(x))`, it serves every gradient attack.

    Args:
      forward: the function of the model; it needs no derivative.
      backward: the differentiable stand-in, of the same output shape and dtype.

    Returns:
      A function of one array, or pytree of arrays, for reverse mode.

    Raises:
      ValueError: at the call, if the two return different shapes or dtypes.

    References: Athalye et al., "Obfuscated gradients give a false sense of security", 2018.

    Guarantees:
      The value is that of `forward`, bit for bit.
      The gradient is that of `backward` at the same point.

    >>> value, slope = jax.value_and_grad(rj.attacks.bpda(jnp.round))(0.75)
    >>> float(value), float(slope)
    (1.0, 1.0)

    A model that sees images of 8 bits, so that what fools it still does when it is stored as such
    (`evaluate(..., levels=255)` counts that):

    >>> def logits_fn(images):
    ...     return images.reshape(len(images), -1)
    >>> eight_bits = rj.attacks.bpda(lambda x: jnp.round(255 * x) / 255)
    >>> def model(images):
    ...     return logits_fn(eight_bits(images))
    >>> print(jnp.round(255 * model(jnp.full((1, 1, 1, 2), 100.4 / 255)), 2))
    [[100. 100.]]
    """

    @jax.custom_vjp
    def function(x):
        return forward(x)

    def run(x):
        return forward(x), x

    def pull(x, cotangent):
        return jax.vjp(backward, x)[1](cotangent)

    function.defvjp(run, pull)

    def checked(x):
        def seen(part):  # whether a type is weak does not matter
            return jax.tree.map(
                lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), jax.eval_shape(part, x)
            )

        value, stand_in = seen(forward), seen(backward)
        if value != stand_in:
            raise ValueError(
                f"bpda: forward returns {value}, but backward {stand_in}; they must agree in shape "
                "and dtype"
            )
        return function(x)

    return checked
