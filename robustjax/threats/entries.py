"""Numbers for inputs that are a pytree."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from robustjax.checks import checked, in_body


@checked(values=in_body, inputs=in_body)
def per_entry(values: Any, inputs: Any) -> np.ndarray:
    """One number for each entry of an example, for `eps`, `bounds` and `mask` of a threat.

    An attack on inputs that are a pytree sees an example as the vector of all its entries, (D,).

    Args:
      values: numbers or arrays, each for an input or for a part of the pytree.
      inputs: the pytree of arrays (N, ...).

    Returns:
      (D,) float32.

    Raises:
      ValueError: `values` is no prefix of `inputs`, or an array does not fit its input.

    >>> inputs = {"age": np.zeros((8, 1)), "pixels": np.zeros((8, 2, 2))}
    >>> rj.threats.per_entry({"age": 5.0, "pixels": np.array([0.25, 0.5])}, inputs).tolist()
    [5.0, 0.25, 0.5, 0.25, 0.5]
    """

    def fill(value, part):
        return jax.tree.map(
            lambda a: np.broadcast_to(np.float32(value), np.shape(a)[1:]).ravel(), part
        )

    try:
        filled = jax.tree.map(fill, values, inputs)
    except (ValueError, TypeError) as error:
        raise ValueError(f"values do not fit the inputs: {str(error).splitlines()[0]}") from error
    return np.concatenate(jax.tree.leaves(filled))
