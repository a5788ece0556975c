"""The axis of devices, and trees that say which arrays are split along it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from robustjax.checks import shown

Device = Any
"""A `jax.Device`, whose type jaxlib does not tell type checkers."""

AXIS = "batch"
"""The name of the device axis, over which collectives inside a per-device function reduce."""


def check_axes(name: str, axes: Any) -> None:
    """Raise ValueError unless axes are None and 0, alone or in a pytree."""
    if isinstance(axes, list | dict) and not axes:
        raise ValueError(f"{name} must be None, 0 or a pytree of these, got {axes}")
    for axis in jax.tree.leaves(axes):
        if axis is False or not isinstance(axis, int) or axis:
            raise ValueError(f"{name} must be None, 0 or a pytree of these, got {shown(axis)}")


def along(axes: Any, tree: Any, function: Callable) -> Any:
    """Map `function(leaf, axis)` over the leaves of a tree, of which `axes` is a prefix."""

    def visit(axis, subtree):
        return jax.tree.map(lambda leaf: function(leaf, axis), subtree)

    return jax.tree.map(visit, axes, tree, is_leaf=lambda axis: axis is None)
