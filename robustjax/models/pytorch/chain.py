"""Networks without a known name: chains of convolutions, batch normalisations and linear layers.

The tensors tell these layers and their order; what happens between them is told in words:

    conv:padding=1 norm relu max_pool conv:stride=2 relu flatten linear relu linear

`conv`, `norm` and `linear` take the next tensors. As in PyTorch, a convolution has stride 1 and
padding 0 unless settings say otherwise. `max_pool` and `avg_pool` have size 2 and as their stride
their size (size=3:stride=2:padding=1 in any case), `mean` averages over the pixels, `flatten` puts
channels first, as PyTorch does, and every other word is an activation (see `layers.activation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from robustjax.models.adapters.linen import Linen
from robustjax.models.nets.layers import ACTIVATIONS, Conv, activation
from robustjax.models.pytorch.names import some
from robustjax.spec import split

WEIGHTED = ("conv", "norm", "linear")
SETTINGS = {
    "conv": ("stride", "padding"),
    "max_pool": ("size", "stride", "padding"),
    "avg_pool": ("size", "stride", "padding"),
}


class Layer(NamedTuple):
    """A layer with weights.

    Attributes:
      name: of its module in PyTorch.
      kind: one of `WEIGHTED`.
      arrays: its tensors by their last names.
    """

    name: str
    kind: str
    arrays: dict[str, np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its weight, or if it has none, of its statistics."""
        return self.arrays.get("weight", self.arrays.get("running_mean", np.zeros(0))).shape


class Step(NamedTuple):
    """A word of the description, with the sizes of its tensors.

    Attributes:
      kind: its name.
      size: of a kernel, or of the square that is pooled.
      stride: None is 1 for a convolution and the size for a pooling.
      padding: zeros on every side.
      features: outputs of a layer with weights.
      inputs: of a linear layer.
      groups, use_bias: of a convolution.
    """

    kind: str
    size: int = 2
    stride: int | None = None
    padding: int = 0
    features: int = 0
    inputs: int = 0
    groups: int = 1
    use_bias: bool = True


class Chain(nn.Module):
    """The steps, one after the other."""

    steps: tuple[Step, ...]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Images (B, H, W, C), or vectors (B, D) -> logits (B, K) and what the last layer sees."""
        features, last = x, max(i for i, s in enumerate(self.steps) if s.kind in WEIGHTED)
        for i, step in enumerate(self.steps):
            features = x if i == last else features
            x = self.run(step, x, f"layer{i}", train)
        return {"logits": x, "features": features}

    @nn.nowrap
    def run(self, step: Step, x: jax.Array, name: str, train: bool) -> jax.Array:
        """One step."""
        if step.kind == "conv":
            return Conv(
                step.features,
                step.size,
                step.stride or 1,
                step.use_bias,
                groups=step.groups,
                padding=step.padding,
                name=name,
            )(x)
        if step.kind == "norm":
            return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=name)(x)
        if step.kind == "linear":
            if x.shape[-1] != step.inputs:
                raise ValueError(
                    f"a linear layer of {step.inputs} inputs gets {x.shape[-1]}: the images have "
                    "another size than in training, or `layers` lacks a stride, pooling or padding"
                )
            return nn.Dense(step.features, step.use_bias, name=name)(x)
        if step.kind == "flatten":
            return jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
        if step.kind == "mean":
            return x.mean((1, 2))
        if step.kind in SETTINGS:
            pool: Any = nn.max_pool if step.kind == "max_pool" else nn.avg_pool
            stride, side = step.stride or step.size, (step.padding, step.padding)
            return pool(x, (step.size, step.size), (stride, stride), (side, side))
        return activation(step.kind)(x)


def is_chain(state: Mapping[str, np.ndarray]) -> bool:
    """Whether the tensors, in their order, are layers of which each takes what the last gives."""
    layers, features = list(_layers(state)), None
    for layer in layers:
        if layer.kind == "" or 0 in layer.shape:
            return False
        takes = layer.shape[0] if layer.kind == "norm" else layer.shape[1]
        if features is not None and layer.kind == "linear" and takes % features:
            return False
        if features is not None and layer.kind == "norm" and takes != features:
            return False
        if features is not None and layer.kind == "conv" and features % takes:
            return False
        features = layer.shape[0]
    return bool(layers)


def _layers(state: Mapping[str, np.ndarray]) -> Iterator[Layer]:
    """The layers in the order of the file; the kind of one that is none of ours is ''."""
    modules: dict[str, dict[str, np.ndarray]] = {}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        modules.setdefault(module, {})[leaf] = value
    for name, arrays in modules.items():
        axes = {leaf: value.ndim for leaf, value in arrays.items()}
        kind, weight, bias = "", axes.get("weight"), axes.get("bias", 1)
        if {"running_mean", "running_var"} <= axes.keys() <= {"weight", "bias", *STATISTICS}:
            kind = "norm" if set(axes.values()) == {1} else ""
        elif axes.keys() <= {"weight", "bias"} and bias == 1:
            kind = {4: "conv", 2: "linear"}.get(weight or 0, "")
        yield Layer(name, kind, arrays)


STATISTICS = ("running_mean", "running_var")


def read(
    state: Mapping[str, np.ndarray],
    text: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> tuple[Linen, dict[str, Any]]:
    """The chain that the tensors and the description make, and its variables.

    Raises:
      ValueError: there is no description, or it does not fit the tensors.
    """
    layers = list(_layers(state))
    if odd := [layer.name or "a tensor" for layer in layers if not layer.kind]:
        raise ValueError(
            f"`layers` is for chains of convolutions, batch normalisations and linear layers; "
            f"{odd[0]} is none"
        )
    found = some(f"{layer.name or layer.kind} {layer.shape}" for layer in layers)
    if text is None:
        raise ValueError(
            f"these weights are a chain of {found}: pass what happens between "
            f"them, for instance layers={_suggestion(layers)!r}; add strides and poolings, as "
            "docs/how_to/pytorch.md shows"
        )
    steps, variables, rest = [], {"params": {}, "batch_stats": {}}, iter(layers)
    for i, word in enumerate(text.split()):
        step = _step(word)
        if step.kind in WEIGHTED:
            layer = next(rest, None)
            if layer is None or layer.kind != step.kind:
                had = f"{layer.name} {layer.shape} is next" if layer else "no weights are left"
                raise ValueError(
                    f"layers={text!r} has a {step.kind} where {had}: these are {found}"
                )
            step = _sized(step, layer, steps)
            for collection, arrays in _variables(layer).items():
                variables[collection][f"layer{i}"] = arrays
        steps.append(step)
    if left := [layer.name for layer in rest]:
        raise ValueError(f"layers={text!r} leaves weights over: {some(left)}")
    variables = {name: tree for name, tree in variables.items() if tree}
    return Linen(Chain(tuple(steps)), mean=mean, std=std), variables


def _step(word: str) -> Step:
    """A word, with its settings."""
    kind, given = split(word)
    known = SETTINGS.get(kind, ())
    for name, value in given:
        least = name != "padding"
        if name not in known or not value.isdecimal() or not least <= int(value) < 1024:
            takes = ", ".join(f"{key}=NUMBER" for key in known) or "no settings"
            raise ValueError(f"{word!r} in `layers`: {kind} takes {takes}")
    if kind not in (*WEIGHTED, *SETTINGS, "flatten", "mean"):
        try:
            activation(kind)
        except ValueError as error:
            known = ", ".join([*WEIGHTED, *list(SETTINGS)[1:], "flatten", "mean", *ACTIVATIONS])
            raise ValueError(f"unknown word {kind!r} in `layers`; known: {known}") from error
    return Step(kind)._replace(**{name: int(value) for name, value in given})


def _sized(step: Step, layer: Layer, before: list[Step]) -> Step:
    """The step with the sizes of its tensors."""
    step = step._replace(features=layer.shape[0], use_bias="bias" in layer.arrays)
    if step.kind != "conv":
        return step._replace(inputs=layer.shape[-1])
    _, channels, side, other = layer.shape
    if side != other:
        raise ValueError(f"{layer.name} has kernels of {side}x{other}; only squares are read")
    given = next((s.features for s in reversed(before) if s.kind == "conv"), channels)
    return step._replace(size=side, groups=max(1, given // channels))


def _variables(layer: Layer) -> dict[str, dict[str, np.ndarray]]:
    """The tensors of a layer as Flax has them."""
    arrays = {name: np.asarray(value, np.float32) for name, value in layer.arrays.items()}
    if layer.kind == "norm":
        ones = np.ones(layer.shape, np.float32)
        scale = {"scale": arrays.get("weight", ones), "bias": arrays.get("bias", 0 * ones)}
        stats = {"mean": arrays["running_mean"], "var": arrays["running_var"]}
        return {"params": _device(scale), "batch_stats": _device(stats)}
    axes = (2, 3, 1, 0) if layer.kind == "conv" else (1, 0)
    kernel = {"kernel": arrays["weight"].transpose(axes)}
    return {"params": _device(kernel | ({"bias": arrays["bias"]} if "bias" in arrays else {}))}


def _device(arrays: dict[str, np.ndarray]) -> Any:
    return jax.tree.map(jnp.asarray, arrays)


def _suggestion(layers: list[Layer]) -> str:
    """A description of a plain network with these layers."""
    words, flat = [], False
    for i, layer in enumerate(layers):
        if layer.kind == "linear" and not flat:
            words, flat = [*words, "flatten"], True
        padding = layer.shape[2] // 2 if layer.kind == "conv" else 0
        words.append(f"conv:padding={padding}" if padding else layer.kind)
        normed = i + 1 < len(layers) and layers[i + 1].kind == "norm"
        if not normed and i + 1 < len(layers):
            words.append("relu")
    return " ".join(words)
