"""What the numbers of an evaluation depend on beside the attacks, for the JSON they stand in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks._engine.examples import Examples
from robustjax.environment import devices, versions


def setting_of(models: Mapping[str, Any], key: jax.Array, data: Examples) -> dict[str, Any]:
    """The setting of an evaluation as a JSON value.

    Args:
      models: by name, pytrees whose arrays are their weights.
      key: the PRNG key.
      data: the images, with labels, indices and targets.

    Returns:
      'n' and 'data_sha256' of the examples, in any order, 'weights_sha256' of each model (None: it
      is a function that holds no arrays as leaves), 'key', 'devices' and 'versions'.
    """
    ordered = data[np.argsort(data.index, kind="stable")]
    examples = ordered.image, ordered.label, ordered.index, ordered.target
    return {
        "n": len(data),
        "data_sha256": digest(examples),
        "weights_sha256": {
            name: digest(model) if _holds_arrays(model) else None for name, model in models.items()
        },
        "key": jax.random.key_data(key).tolist(),
        "devices": devices(),
        "versions": versions(),
    }


def _holds_arrays(model: Any) -> bool:
    leaves = jax.tree.leaves(model)
    return bool(leaves) and all(isinstance(leaf, jax.typing.ArrayLike) for leaf in leaves)


def digest(*trees: Any) -> str:
    """The SHA-256 of the arrays, keys and texts of some pytrees, as 64 hex digits."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        if isinstance(leaf, str):
            found.update(leaf.encode())
            continue
        is_key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
