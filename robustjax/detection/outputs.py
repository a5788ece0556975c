"""What a detector reads beside the logits: the activations of the model's layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks._engine.inputs import one_example
from robustjax.attacks._engine.tiles import over_tiles
from robustjax.outputs import logits_of


def layers_of(output: Any) -> tuple[jax.Array, ...]:
    """The activations, first layer first: the 'features' of a mapping, or the entry after logits.

    A single array is one layer.

    Raises:
      ValueError: the model returns logits alone.
    """
    if isinstance(output, Mapping):
        layers = output.get("features")
    else:
        layers = output[1] if isinstance(output, tuple | list) and len(output) > 1 else None
    if layers is None:
        raise ValueError(
            "this detector reads features, and the model returns logits alone; let it return "
            "{'logits': (B, K), 'features': (B, D) or a tuple of the layers' activations}"
        )
    return tuple(layers) if isinstance(layers, tuple | list) else (layers,)


def features_of(output: Any) -> jax.Array:
    """The last layer before the logits, flat: (D,)."""
    return layers_of(output)[-1].reshape(-1)


def auxiliary_of(output: Any) -> jax.Array:
    """The log-odds () of an auxiliary head, the 'auxiliary' of a mapping.

    Raises:
      ValueError: the model has none.
    """
    if not isinstance(output, Mapping) or "auxiliary" not in output:
        raise ValueError(
            "this detector reads an auxiliary head; train one by the method rr, and let the model "
            "return {'logits': (B, K), 'auxiliary': (B,)}, as models.with_layers does"
        )
    return output["auxiliary"]


def drawn_of(output: Any) -> jax.Array:
    """What one draw of a randomised model says: the 'drawn' of a mapping, or else its logits."""
    drawn = isinstance(output, Mapping) and "drawn" in output
    return output["drawn"] if drawn else logits_of(output)


def collect(
    read: Callable[[Any], Any], model: Callable, images: np.ndarray, batch_size: int
) -> Any:
    """`read(output)` of every image, as NumPy arrays (N, ...); `read` is a module's function."""
    shared = (jax.tree_util.Partial(read), model)
    return over_tiles(_read_one, shared, {"image": images}, min(batch_size, len(images)))


def _read_one(read, model, row):
    return jax.tree.map(jnp.asarray, read(one_example(model)(row["image"])))
