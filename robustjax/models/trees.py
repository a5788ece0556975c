"""Variables by name: nested dictionaries as Flax has them, and flat ones as files have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import traverse_util


def flatten(variables: Any) -> dict[str, Any]:
    """Nested dictionaries -> one, of names such as 'params/head/kernel'.

    >>> flatten({"params": {"head": {"bias": 0}}})
    {'params/head/bias': 0}
    """
    return dict(traverse_util.flatten_dict(variables, sep="/"))


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def shapes(variables: Any) -> dict[str, str]:
    """Name -> type and shape.

    >>> import numpy as np
    >>> shapes({"params": {"head": {"bias": np.zeros(3, np.float32)}}})
    {'params/head/bias': 'float32 (3,)'}
    """
    return {name: f"{a.dtype} {tuple(a.shape)}" for name, a in flatten(variables).items()}
