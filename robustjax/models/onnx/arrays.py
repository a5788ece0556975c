"""What ONNX's operators compute on: arrays of NumPy, or of JAX where an image is involved."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Array: TypeAlias = Any
"""An array of NumPy or of JAX."""

Host: TypeAlias = Any
"""An array of NumPy, even while a program is traced: it decides a shape."""

TRAINING = (
    "it is in training mode: export the network in evaluation mode (model.eval(), and for "
    "torch.onnx training=TrainingMode.EVAL)"
)


def library(*arrays: Array) -> Any:
    """NumPy if all arrays are its own, so that shapes stay numbers; else jax.numpy.

    >>> library(np.ones(2)) is np, library(np.ones(2), jnp.ones(2)) is jnp
    (True, True)
    """
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np
