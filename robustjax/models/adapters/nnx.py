"""Flax NNX modules of your own: `__call__(x)`, a batch of images; they bring their weights."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from typing_extensions import override

from robustjax.models.adapters.base import Foreign, Ran, check_call, switches
from robustjax.models.nets.layers import BN
from robustjax.models.trees import Layout, flatten, unflatten


@dataclasses.dataclass(frozen=True)
class NNX(Foreign):
    """An NNX module as a network: `nnx.Param` is trained, all else but random streams is state.

    Its weights are those it has: a run's seed does not change them. `train()` and `eval()` of the
    module switch it; its `nnx.BatchNorm` layers, at any depth, reduce over the axes that the batch
    is mapped over.

    Args:
      module: of the same structure and settings as the weights that are to run in it.
    """

    module: nnx.Module = dataclasses.field(compare=False)
    structure: Any = dataclasses.field(init=False, repr=False)
    params: Layout = dataclasses.field(init=False, repr=False)
    stats: Layout = dataclasses.field(init=False, repr=False)
    streams: Layout = dataclasses.field(init=False, repr=False)
    start: dict[str, Any] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self):
        check_call(self.title, self.module.__call__)
        structure, *states = nnx.split(self.module, nnx.Param, nnx.RngState, ...)
        (params, weights), (streams, _), (stats, state) = map(Layout.of, states)
        start = {"params": weights} | ({"state": state} if state else {})
        for name, value in (
            ("structure", structure),
            ("params", params),
            ("streams", streams),
            ("stats", stats),
            ("start", start),
        ):
            object.__setattr__(self, name, value)

    @override
    def without_weights(self) -> NNX:
        bare = copy.copy(self)
        # Of its module only the class is asked, from here on.
        object.__setattr__(bare, "module", object.__new__(type(self.module)))
        object.__setattr__(bare, "start", {})
        return bare

    @override
    def init(self, key: jax.Array, x: jax.Array, bn: BN) -> dict[str, Any]:
        return jax.tree.map(jnp.array, self.start)  # a copy: training gives its arrays away

    @override
    def run(self, variables: Any, x: jax.Array, bn: BN, key: jax.Array | None, method: str) -> Ran:
        module = nnx.merge(
            self.structure,
            self.params.build(variables["params"]),
            self._streams(key),
            self.stats.build(variables.get("state", {})),
        )
        training = key is not None or bn.mode != "running"
        module.train() if training else module.eval()
        synchronised = []
        for path, layer in nnx.iter_modules(module):
            if isinstance(layer, nnx.BatchNorm):
                synchronised.append("/".join(("state", *map(str, path), "")))
                for name, value in {
                    "use_running_average": bn.mode == "running",
                    "axis_name": bn.axes or None,
                    "axis_index_groups": None,
                    "momentum": 0.0 if bn.mode == "capture" else layer.momentum,
                }.items():
                    setattr(layer, name, value)
        asked = method if method != "both" and self.answers(method) else "__call__"
        told = []
        if method == "both" and self.answers("features"):  # note what its own call makes of them
            own = module.features
            vars(module)["features"] = lambda *a, **k: told.append(own(*a, **k)) or told[-1]
        call = getattr(module, asked)
        output = call(x, **switches(getattr(self.module, asked), training))
        vars(module).pop("features", None)
        _, after = Layout.of(nnx.split(module, nnx.Param, nnx.RngState, ...)[3])
        kept = flatten(after)
        stats = unflatten({name: kept[name] for name in self.stats.names})
        features = output if asked == "features" else told[-1] if told else None
        return Ran(output, features, {"state": stats} if stats else {}, tuple(synchronised))

    @override
    def answers(self, method: str) -> bool:
        return callable(getattr(type(self.module), method, None))

    @override
    def draws(self, image_shape: Sequence[int]) -> bool:
        return bool(self.streams.names)

    def _streams(self, key: jax.Array | None) -> Any:
        """The module's random streams, begun again from this key."""
        key = jax.random.key(0) if key is None else key
        leaves = [
            jnp.uint32(0) if name.endswith("count") else jax.random.fold_in(key, i)
            for i, name in enumerate(self.streams.names)
        ]
        return jax.tree.unflatten(self.streams.treedef, leaves)
