"""What a model returns for one example: logits alone, or logits and more."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec

import jax
import jax.numpy as jnp

from robustjax.checks import INF, check_arrays, checked, is_real, shown

P = ParamSpec("P")


@checked
def part(output: Any, name: str, place: int | None = None) -> Any:
    """A part of an output, of one example or of a batch; None where there is none.

    Structures with names (mappings, named tuples, objects with attributes) are read by name only, a
    plain tuple or list by place; an array is its own part 0.

    >>> part({"score": 0}, "logits", 0), part({"score": 0, "logits": 1}, "logits", 0)
    (None, 1)
    >>> part((1, 0), "features", 1), part((1,), "features", 1)
    (0, None)
    """
    if isinstance(output, Mapping):
        return output.get(name)
    if isinstance(output, tuple | list) and not hasattr(output, "_fields"):
        return output[place] if place is not None and place < len(output) else None
    if hasattr(output, "shape"):
        return output if place == 0 else None
    return getattr(output, name, None)


def has_logits(output: Any) -> bool:
    """Whether the output for one example holds logits (K,), K >= 2.

    >>> has_logits((jnp.zeros(2), jnp.zeros(9))), has_logits(jnp.zeros((8, 8, 2)))
    (True, False)
    """
    return not _complaint(part(output, "logits", 0))


def logits_of(output: Any) -> jax.Array:
    """The logits (K,) in what a model returns for one example: all of it, or a `part`.

    Raises:
      ValueError: it holds none. Only a loss and a success of your own read such an output.

    >>> logits_of({"logits": jnp.array([1, 2]), "score": 0}).tolist()
    [1, 2]
    """
    logits = part(output, "logits", 0)
    if complaint := _complaint(logits):
        raise ValueError(
            f"{complaint}. For a task of another kind give the attack a `loss` of your own, and a "
            "`success` both to the call and to an attack with such a field"
        )
    return logits


def num_classes(output: Any) -> int:
    """K, the number of logits in the output for one example; 0 where there are none.

    >>> num_classes(jnp.zeros(3)), num_classes(jnp.zeros(()))
    (3, 0)
    """
    return logits_of(output).shape[0] if has_logits(output) else 0


def _complaint(logits: Any) -> str:
    """What is wrong with logits of one example; empty if nothing is."""
    shape = getattr(logits, "shape", None)
    if shape is None or shape == (0,):
        return "the model returns no logits: let it return (B, K), or {'logits': (B, K), ...}"
    if shape == () and jnp.issubdtype(logits.dtype, jnp.integer):
        return "the model returns classes (B,): let it return the logits (B, K) behind them"
    if shape in ((), (1,)):
        return (
            f"the model returns one number per image, {'(B, 1)' if shape else '(B,)'}, where "
            "logits (B, K) are read: if it is the log-odds z of class 1 of two, return "
            "jnp.stack([jnp.zeros_like(z), z], -1) for z of shape (B,)"
        )
    if len(shape) > 1:
        axes = ", ".join(map(str, ("B", *shape)))
        return f"the model returns ({axes}), where logits (B, K) are read"
    return ""


def prediction(output: Any) -> jax.Array:
    """The class with the largest logit; -1, which is never right, where a logit is NaN.

    >>> [int(prediction(jnp.array(z))) for z in ([1.0, 2.0], [1.0, jnp.nan])]
    [1, -1]
    """
    logits = _real(logits_of(output))
    return jnp.where(jnp.any(jnp.isnan(logits)), -1, jnp.argmax(logits))


def layers_of(output: Any) -> tuple[jax.Array, ...]:
    """The activations, first layer first: the part 'features', in a tuple the entry after logits.

    A single array is one layer.

    Raises:
      ValueError: the model returns logits alone.

    >>> [a.tolist() for a in layers_of((jnp.array([1, 2]), (jnp.array([3]), jnp.array([4]))))]
    [[3], [4]]
    """
    layers = part(output, "features", 1)
    if layers is None:
        raise ValueError(
            "the model returns logits alone, and its features are needed; let it return "
            "{'logits': (B, K), 'features': (B, D) or a tuple of the layers' activations}"
        )
    layers = tuple(layers) if isinstance(layers, tuple | list) else (layers,)
    check_arrays("the features of the output", layers, axes=1)
    return layers


def features_of(output: Any) -> jax.Array:
    """The last layer before the logits, flat: (D,).

    >>> features_of({"logits": jnp.array([1, 2]), "features": jnp.array([[3], [4]])}).tolist()
    [3, 4]
    """
    return layers_of(output)[-1].reshape(-1)


def auxiliary_of(output: Any) -> jax.Array:
    """The log-odds () of an auxiliary head, the 'auxiliary' of a structure with names.

    Raises:
      ValueError: the model has none.

    >>> float(auxiliary_of({"logits": jnp.array([1, 2]), "auxiliary": jnp.array(0.5)}))
    0.5
    """
    if (found := part(output, "auxiliary")) is None:
        raise ValueError(
            "the model has no auxiliary head; train one by the method rr, and let the model return "
            "{'logits': (B, K), 'auxiliary': (B,)}, as models.with_layers does"
        )
    return found


def drawn_of(output: Any) -> jax.Array:
    """The logits of one draw of a randomised model: the part 'drawn', or else the logits.

    >>> drawn_of({"logits": jnp.array([1, 2]), "drawn": jnp.array([0, 3])}).tolist()
    [0, 3]
    """
    drawn = part(output, "drawn")
    return logits_of(output) if drawn is None else drawn


def _real(logits: Any) -> Any:
    if not is_real(logits):
        raise TypeError(f"logits must be real numbers, got {shown(logits)}")
    return logits


def float_logits(output: Any) -> jax.Array:
    """The logits in float32 at least.

    >>> str(float_logits(jnp.array([1, 2], jnp.bfloat16)).dtype)
    'float32'
    """
    logits = jnp.asarray(_real(logits_of(output)))
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


@checked(outputs=(1, INF))
def of_logits(
    loss: Callable[Concatenate[jax.Array, Any, P], jax.Array], outputs: int = 1
) -> Callable[Concatenate[Any, Any, P], jax.Array]:
    """A loss of the logits, whatever else the model returns beside them, in float32 at least.

    Eight or eleven bits tell few losses apart, and 1e-12 is 0 in float16.

    Args:
      loss: (logits, target, ...) -> scalar.
      outputs: how many of its first arguments are logits.

    >>> float(of_logits(lambda logits, y: logits[y])({"logits": jnp.array([1, 2])}, 1))
    2.0
    """
    read: Callable[..., jax.Array] = loss
    names = list(inspect.signature(loss).parameters)[:outputs]

    @functools.wraps(loss)
    def reading(*args: Any, **options: Any) -> jax.Array:
        first = map(float_logits, args[:outputs])
        named = {n: float_logits(v) if n in names else v for n, v in options.items()}
        return read(*first, *args[outputs:], **named)

    return reading
