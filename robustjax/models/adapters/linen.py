"""Flax linen modules of your own: `__call__(x)` or `__call__(x, train=...)`, a batch of images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import errors
from flax import linen as nn
from typing_extensions import override

from robustjax.models.adapters.base import Foreign, Ran, check_call, switches
from robustjax.models.nets.layers import BN


@dataclasses.dataclass(frozen=True)
class Linen(Foreign):
    """A linen module as a network.

    Its `nn.BatchNorm` layers, at any depth, follow the mode of the pass: they reduce over the axes
    that the batch is mapped over, whatever `axis_name` they were made with, and keep their own
    momentum. A layer that is told to use its running statistics in training, too, is left to it.

    Args:
      module: images (B, H, W, C) -> logits (B, K), or (logits, features), or a mapping of both.

    Raises:
      TypeError: the module cannot be hashed, or asks for an argument that nobody gives.
    """

    module: nn.Module

    def __post_init__(self):
        try:
            hash(self.module)
        except TypeError as error:
            raise TypeError(
                f"{self.title} cannot be hashed, and would compile again at "
                "every call: hold numbers, text, functions and tuples in its fields, no arrays"
            ) from error
        check_call(self.title, self.module.__call__)

    @override
    def init(self, key: jax.Array, x: jax.Array, bn: BN) -> dict[str, Any]:
        switch = switches(self.module.__call__, training=False)
        start = jax.jit(functools.partial(self.module.init, **switch))
        return dict(start(key, self.normalised(x)))

    @override
    def run(self, variables: Any, x: jax.Array, bn: BN, key: jax.Array | None, method: str) -> Ran:
        asked = method if method != "both" and self.answers(method) else "__call__"
        training = key is not None or bn.mode != "running"
        stats = {name: tree for name, tree in variables.items() if name != "params"}
        layers = _Layers(bn)
        with nn.intercept_methods(layers):
            output, new = self.module.apply(
                variables,
                x,
                **switches(getattr(self.module, asked), training),
                rngs=None if key is None else {"params": key},  # all other streams fall back on it
                method=asked,
                mutable=sorted(stats),
            )
        features = output if asked == "features" else layers.features
        return Ran(output, features, {**stats, **new}, tuple(layers.synchronised))

    @override
    def answers(self, method: str) -> bool:
        return callable(getattr(type(self.module), method, None))

    @override
    def draws(self, image_shape: Sequence[int]) -> bool:
        x = jnp.zeros((1, *image_shape), jnp.float32)
        try:
            jax.eval_shape(
                lambda key: self.apply(self.init(key, x, BN()), x, BN("batch")), jax.random.key(0)
            )
        except errors.InvalidRngError:
            return True
        return False


class _Layers:
    """Flax's hook on every method call of a pass: batch normalisation, and the root's features."""

    def __init__(self, bn: BN):
        self.bn, self.features, self.synchronised = bn, None, []

    def __call__(
        self,
        call: Callable,
        args: tuple,
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        layer = context.module
        if isinstance(layer, nn.BatchNorm) and context.method_name == "__call__":
            return self.normalise(layer, call, *args, **kwargs)
        out = call(*args, **kwargs)
        if context.method_name == "features" and not layer.path:
            self.features = out
        return out

    def normalise(
        self,
        layer: nn.BatchNorm,
        call: Callable,
        x: jax.Array,
        use_running_average: bool | None = None,
        **kwargs: Any,
    ) -> jax.Array:
        """Batch normalisation in the mode of the pass: a clone of the layer, on its variables."""
        asked = layer.use_running_average if use_running_average is None else use_running_average
        wanted = {
            "use_running_average": self.bn.mode == "running" or bool(asked),
            "axis_name": self.bn.axes or None,
            "axis_index_groups": None,
            "momentum": 0.0 if self.bn.mode == "capture" else layer.momentum,
        }
        self.synchronised.append("/".join(("batch_stats", *layer.path, "")))
        if all(getattr(layer, name) == value for name, value in wanted.items()):
            return call(x, **kwargs)  # the clone comes by, too
        return layer.clone(parent=layer.scope, **wanted)(x, **kwargs)
