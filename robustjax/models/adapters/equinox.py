"""Equinox modules of your own: one image (C, H, W), channels first; they bring their weights."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.models.adapters.base import Foreign, Ran, check_call, switches
from robustjax.models.nets.layers import BN
from robustjax.models.trees import Layout

ROW = "row"
"""The axis of the images of a batch, which the module sees one by one."""


@dataclasses.dataclass(frozen=True)
class Equinox(Foreign):
    """An Equinox module as a network: its floating-point arrays are trained.

    Its weights are those it has: a run's seed does not change them. `__call__` takes an image, and
    where it has such arguments a `state`, which it returns after its output, and a `key`.
    `eqx.nn.BatchNorm` layers, at any depth, reduce over the axes that the batch is mapped over,
    whatever `axis_name` they were made with.

    Args:
      module: the module, or (module, state) as `eqx.nn.make_with_state` returns them; of the same
        structure as the weights that are to run in it.

    Raises:
      TypeError: what is no array in it cannot be hashed, or it asks for other arguments.
    """

    module: Any = dataclasses.field(compare=False)
    params: Layout = dataclasses.field(init=False, repr=False)
    buffers: Layout = dataclasses.field(init=False, repr=False)
    state: Layout = dataclasses.field(init=False, repr=False)
    static: Any = dataclasses.field(init=False, repr=False)
    start: dict[str, Any] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self):
        module, state = self.module if isinstance(self.module, tuple) else (self.module, None)
        params, rest = eqx.partition(module, eqx.is_inexact_array)
        buffers, static = eqx.partition(rest, eqx.is_array)
        parts = {"params": params, "buffers": buffers, "state": state}
        start = {}
        for name, part in parts.items():
            layout, arrays = Layout.of(part)
            object.__setattr__(self, name, layout)
            start |= {name: arrays} if arrays or name == "params" else {}
        object.__setattr__(self, "static", static)
        object.__setattr__(self, "start", start)
        check_call(self.title, type(module).__call__, ("x", "state", "key"))
        try:
            hash(self)
        except TypeError as error:
            raise TypeError(
                f"{self.title} cannot be hashed, and would compile again at every call: {error}"
            ) from error

    @property
    @override
    def title(self) -> str:
        return type(self.static).__name__

    @override
    def without_weights(self) -> Equinox:
        bare = copy.copy(self)
        object.__setattr__(bare, "module", self.static)
        object.__setattr__(bare, "start", {})
        return bare

    @override
    def init(self, key: jax.Array, x: jax.Array, bn: BN) -> dict[str, Any]:
        return jax.tree.map(jnp.array, self.start)  # a copy: training gives its arrays away

    @override
    def run(self, variables: Any, x: jax.Array, bn: BN, key: jax.Array | None, method: str) -> Ran:
        if bn.mode == "capture":
            raise ValueError("Equinox's BatchNorm cannot capture; take another method or network")
        asked = method if method != "both" and self.answers(method) else "__call__"
        params, buffers, state = (
            layout.build(variables.get(name, {}))
            for name, layout in (
                ("params", self.params),
                ("buffers", self.buffers),
                ("state", self.state),
            )
        )
        training = key is not None or bn.mode != "running"
        module = eqx.nn.inference_mode(eqx.combine(params, buffers, self.static), not training)
        module = _synchronised(module, bn)
        call = getattr(module, asked)
        known = inspect.signature(call).parameters
        given = switches(call, training) | ({"key": key} if "key" in known else {})

        def one(image, state):
            more = {"state": state} if "state" in known else {}
            out = call(image, **more, **given)
            return out if more else (out, state)

        rows = jax.vmap(one, (0, None), (0, None), axis_name=ROW)
        output, state = rows(jnp.moveaxis(x, -1, 1), state)
        stats = {name: tree for name, tree in variables.items() if name != "params"}
        if "state" in stats:
            stats["state"] = Layout.of(state)[1]
        return Ran(output, output if asked == "features" else None, stats, ("state/",))

    @override
    def answers(self, method: str) -> bool:
        return callable(getattr(self.static, method, None))

    @override
    def draws(self, image_shape: Sequence[int]) -> bool:
        return "key" in inspect.signature(self.static.__call__).parameters


def _synchronised(module: Any, bn: BN) -> Any:
    """The module with its batch normalisation in the mode of the pass."""

    def is_norm(node):
        return isinstance(node, eqx.nn.BatchNorm)

    def change(node):
        if not is_norm(node):
            return node
        node = copy.copy(node)
        object.__setattr__(node, "axis_name", (ROW, *bn.axes))
        object.__setattr__(node, "inference", bn.mode == "running")
        return node

    return jax.tree.map(change, module, is_leaf=is_norm)
