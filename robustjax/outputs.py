"""What a model returns for one example: logits alone, or logits and more."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec

import jax
import jax.numpy as jnp

P = ParamSpec("P")


def logits_of(output: Any) -> jax.Array:
    """The logits (K,) in what a model returns: all of it, its first entry, or its 'logits'.

    >>> logits_of({"logits": jnp.array([1, 2]), "score": 0}).tolist()
    [1, 2]
    """
    if isinstance(output, Mapping):
        return output["logits"]
    return output[0] if isinstance(output, tuple | list) else output


def prediction(output: Any) -> jax.Array:
    """The class with the largest logit; -1, which is never right, where a logit is NaN.

    >>> [int(prediction(jnp.array(z))) for z in ([1.0, 2.0], [1.0, jnp.nan])]
    [1, -1]
    """
    logits = logits_of(output)
    return jnp.where(jnp.any(jnp.isnan(logits)), -1, jnp.argmax(logits))


def layers_of(output: Any) -> tuple[jax.Array, ...]:
    """The activations, first layer first: the 'features' of a mapping, or the entry after logits.

    A single array is one layer.

    Raises:
      ValueError: the model returns logits alone.

    >>> [a.tolist() for a in layers_of((jnp.array([1, 2]), (jnp.array([3]), jnp.array([4]))))]
    [[3], [4]]
    """
    if isinstance(output, Mapping):
        layers = output.get("features")
    else:
        layers = output[1] if isinstance(output, tuple | list) and len(output) > 1 else None
    if layers is None:
        raise ValueError(
            "the model returns logits alone, and its features are needed; let it return "
            "{'logits': (B, K), 'features': (B, D) or a tuple of the layers' activations}"
        )
    return tuple(layers) if isinstance(layers, tuple | list) else (layers,)


def features_of(output: Any) -> jax.Array:
    """The last layer before the logits, flat: (D,).

    >>> features_of({"logits": jnp.array([1, 2]), "features": jnp.array([[3], [4]])}).tolist()
    [3, 4]
    """
    return layers_of(output)[-1].reshape(-1)


def auxiliary_of(output: Any) -> jax.Array:
    """The log-odds () of an auxiliary head, the 'auxiliary' of a mapping.

    Raises:
      ValueError: the model has none.

    >>> float(auxiliary_of({"logits": jnp.array([1, 2]), "auxiliary": jnp.array(0.5)}))
    0.5
    """
    if not isinstance(output, Mapping) or "auxiliary" not in output:
        raise ValueError(
            "the model has no auxiliary head; train one by the method rr, and let the model return "
            "{'logits': (B, K), 'auxiliary': (B,)}, as models.with_layers does"
        )
    return output["auxiliary"]


def drawn_of(output: Any) -> jax.Array:
    """The logits of one draw of a randomised model: the 'drawn' of a mapping, or else its logits.

    >>> drawn_of({"logits": jnp.array([1, 2]), "drawn": jnp.array([0, 3])}).tolist()
    [0, 3]
    """
    drawn = isinstance(output, Mapping) and "drawn" in output
    return output["drawn"] if drawn else logits_of(output)


def float_logits(output: Any) -> jax.Array:
    """The logits in float32 at least.

    >>> str(float_logits(jnp.array([1, 2], jnp.bfloat16)).dtype)
    'float32'
    """
    logits = jnp.asarray(logits_of(output))
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def of_logits(
    loss: Callable[Concatenate[jax.Array, Any, P], jax.Array],
) -> Callable[Concatenate[Any, Any, P], jax.Array]:
    """A loss of the logits, whatever else the model returns beside them, in float32 at least.

    Eight or eleven bits tell few losses apart, and 1e-12 is 0 in float16.

    >>> float(of_logits(lambda logits, y: logits[y])({"logits": jnp.array([1, 2])}, 1))
    2.0
    """

    @functools.wraps(loss)
    def reading(output: Any, target: Any, *args: P.args, **options: P.kwargs) -> jax.Array:
        return loss(float_logits(output), target, *args, **options)

    return reading
