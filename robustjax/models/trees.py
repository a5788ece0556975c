"""Variables by name: nested dictionaries as Flax has them, and flat ones as files have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from flax import traverse_util

from robustjax.checks import checked


def flatten(variables: Any) -> dict[str, Any]:
    """Nested dictionaries -> one, of names such as 'params/head/kernel'.

    >>> flatten({"params": {"head": {"bias": 0}}})
    {'params/head/bias': 0}
    """
    return dict(traverse_util.flatten_dict(variables, sep="/"))


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")


@checked
def shapes(variables: Mapping[str, Any]) -> dict[str, str]:
    """Name -> type and shape.

    >>> import numpy as np
    >>> shapes({"params": {"head": {"bias": np.zeros(3, np.float32)}}})
    {'params/head/bias': 'float32 (3,)'}
    """
    return {name: f"{a.dtype} {tuple(a.shape)}" for name, a in flatten(variables).items()}


class Layout(NamedTuple):
    """How a library's own tree of arrays is made of variables by name."""

    names: tuple[str, ...]
    treedef: Any

    @classmethod
    def of(cls, tree: Any) -> tuple[Layout, dict[str, Any]]:
        """The layout of a tree, and its arrays by name.

        >>> Layout.of({"layers": [{"weight": 1}, {"weight": 2}]})[1]
        {'layers': {'0': {'weight': 1}, '1': {'weight': 2}}}
        """
        leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
        flat = {"/".join(map(_word, _path(path))): leaf for path, leaf in leaves}
        return cls(tuple(flat), treedef), unflatten(flat)

    def build(self, variables: Any) -> Any:
        """The inverse: a tree with these arrays."""
        flat = flatten(variables)
        return jax.tree.unflatten(self.treedef, [flat[name] for name in self.names])


def _path(path: tuple) -> tuple:
    """Without the step from one of NNX's variables to its value."""
    return path[:-1] if len(path) > 1 and _word(path[-1]) == "value" else path


def _word(step: Any) -> str:
    """One step of a path into a tree."""
    return str(next(getattr(step, n) for n in ("key", "name", "idx") if hasattr(step, n)))
