"""Networks trained in PyTorch, recognised by the names of their weights.

`LAYOUTS` are tables of names (see `names`); the one that knows most of a file's tensors reads
it. Widths, depths, groups, heads and classes follow from the shapes. A file that none of them knows
is a chain of layers, if its tensors fit together as one (see `chain`).
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.tree_util import Partial

from robustjax.checks import checked
from robustjax.models.classifier import Classifier
from robustjax.models.factory import apply, init
from robustjax.models.heads import CosineHead, LinearHead
from robustjax.models.pytorch import chain
from robustjax.models.pytorch.file import read_state_dict
from robustjax.models.pytorch.names import UNUSED, Layout, Settings, Weights, some
from robustjax.models.pytorch.residual import RESIDUAL
from robustjax.models.pytorch.transformers import TRANSFORMERS

LAYOUTS: tuple[Layout, ...] = (*RESIDUAL, *TRANSFORMERS)
MEANS, STDS = ("mean", "mu", "new_mean"), ("std", "sigma", "new_std")

DEEPEST = 512
"""Blocks of a network: a ResNet of 1,001 layers has 333."""


@checked(patch=(1, 1024), heads=(1, 1024))
def from_torch(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    activation: str | None = None,
    shortcut: Literal["activated", "raw"] | None = None,
    head: Literal["linear", "cosine"] | None = None,
    patch: int | None = None,
    heads: int | None = None,
    tokens_norm: bool | None = None,
    layers: str | None = None,
) -> tuple[Partial, Partial]:
    """Load a network trained in PyTorch, for images (B, H, W, C) in [0, 1] as everywhere.

    Families, as named by torchvision, timm, pytorch-cifar, TRADES, DeepMind and RobustBench: ResNet
    (also ResNeXt and wide bottlenecks), PreActResNet, WideResNet, DMWideResNet and DMPreActResNet,
    with gates or MeanSparse; ConvNeXt, ViT and DeiT, XCiT, Swin; and chains of convolutions, batch
    normalisations and linear layers of any name. Prefixes ('module.', 'model.') are stripped.
    PyTorch itself is not needed.

    Args:
      source: a .pt, .pth or .safetensors file, or a state_dict of CPU tensors or arrays.
      mean, std: (C,), of the normalisation before the network, in [0, 1] pixels; None if there was
        none, or if it is among the weights (buffers named mean and std, or mu and sigma).
      activation: see `layers.activation`; it cannot be inferred from the weights. None: 'silu' for
        DeepMind's layouts, 'gelu' for transformers and ConvNeXt, 'relu' for all others.
      shortcut: for PreActResNet only, and not inferable either: the projections of its shortcuts
        read the block's input after BN and activation ('activated': pytorch-cifar, RobustBench's
        PreActBlockV2) or before ('raw': RobustBench's PreActBlock).
      head: 'cosine' if the last layer sees features of length 1 with weights of length 1; None:
        'linear', and an error where the last layer is linear and has no bias.
      patch: for XCiT only: the side of a token in pixels, which its strides decide.
      heads: for ViT only: heads of the attention; None: heads of 64 entries, and an error where
        the published networks of this width have others.
      tokens_norm: for XCiT only: whether the blocks of the class token normalise all tokens; None:
        as in the published network of this width (all but nano do), and an error where none is.
      layers: for a chain only: what happens between its tensors, for instance
        'conv:padding=1 relu max_pool flatten linear', see `models.pytorch.chain`.

    Returns:
      (logits_fn, features_fn), as from `models.apply`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file needs code to run, the layout is unknown, or keys (named in the error)
        are missing, unexpected or of another shape.

    Guarantees:
      The logits are PyTorch's in evaluation mode, up to the rounding of float32.
      Every tensor is used, is one that no forward pass reads, or is named in an error.
      No code named by a file runs.

    >>> logits_fn, features_fn = rj.models.from_torch("resnet18.pt")  # doctest: +SKIP
    >>> state = {"fc.weight": np.ones((10, 512)), "fc.bias": np.zeros(10)}
    >>> logits_fn, features_fn = rj.models.from_torch(state, layers="flatten linear")
    >>> logits_fn(jnp.ones((1, 16, 32, 1))).shape
    (1, 10)
    """
    options: dict[str, Any] = {
        "mean": mean,
        "std": std,
        "activation": activation,
        "shortcut": shortcut,
        "head": head,
        "patch": patch,
        "heads": heads,
        "tokens_norm": tokens_norm,
        "layers": layers,
    }
    if not isinstance(source, Mapping):
        try:
            return from_torch(read_state_dict(source), **options)
        except ValueError as error:
            prefix = "" if str(error).startswith(str(source)) else f"{source}: "
            raise ValueError(f"{prefix}{error}") from error
    if not all(isinstance(name, str) for name in source):
        raise ValueError(f"the names of the weights must be text, got {some(map(repr, source))}")
    state = {name: np.asarray(value) for name, value in source.items() if not _is_unused(name)}
    own_mean, own_std = _pop(state, MEANS), _pop(state, STDS)
    weights = None if layers else _recognise(state)
    if weights is None:
        told = ("activation", "shortcut", "head", "patch", "heads", "tokens_norm")
        if wrong := [name for name in told if options[name] is not None]:
            raise ValueError(f"`{wrong[0]}` is not for a chain of layers; `layers` describes it")
        scale = [_scale(*pair) for pair in ((own_mean, mean, None), (own_std, std, None))]
        module, variables = chain.read(state, layers, *scale)
        return apply(module, variables)
    channels = weights.channels()
    mean, std = _scale(own_mean, mean, channels), _scale(own_std, std, channels)
    layout = weights.layout
    asked = {"shortcut": shortcut, "patch": patch, "heads": heads, "tokens_norm": tokens_norm}
    _check_asked(layout, asked)
    settings = Settings(activation or layout.activation, **asked)
    if sum(weights.blocks()) > DEEPEST:
        raise ValueError(
            f"these weights are of {sum(weights.blocks())} blocks; at most {DEEPEST} are read"
        )
    stem, body, side = layout.build(weights, settings)
    classes = _classes(weights)
    if head is None and not _has_bias(weights):
        raise ValueError(
            "the last layer has no bias: pass head='cosine' if it sees features of length 1 with "
            "weights of length 1 (hypersphere embedding), head='linear' if it does not"
        )
    last = CosineHead(classes, scale=1.0) if head == "cosine" else LinearHead(classes)
    module = Classifier(stem, body, last, mean, std)
    return apply(module, _fill(module, weights, (side, side, channels)))


def _is_unused(name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in UNUSED)


Scale = tuple[str, np.ndarray] | None


def _pop(state: dict[str, np.ndarray], names: tuple[str, ...]) -> Scale:
    """The buffer of the input's normalisation, removed from `state`."""
    key = next((key for key in state if key.split(".")[-1] in names), None)
    return None if key is None else (key, state.pop(key))


def _scale(
    own: Scale, given: Sequence[float] | None, channels: int | None
) -> tuple[float, ...] | None:
    """The mean or std of the input's normalisation: given, or a buffer."""
    if own is None:
        return None if given is None else tuple(map(float, given))
    key, value = own
    if channels is not None and value.size != channels:
        raise ValueError(
            f"{key} must have a number for each of {channels} channels, got shape {value.shape}"
        )
    found = tuple(map(float, value.ravel()))
    if given is not None:
        name = "mean" if key.split(".")[-1] in MEANS else "std"
        raise ValueError(f"the weights contain {key} = {found}; do not pass {name}")
    return found


def _check_asked(layout: Layout, given: Mapping[str, Any]) -> None:
    """Raise ValueError if an argument is for networks of another layout."""
    for name, value in given.items():
        if value is not None and name not in layout.asks:
            titles = " or ".join(other.title for other in LAYOUTS if name in other.asks)
            raise ValueError(f"`{name}` is for a {titles}; these are weights of a {layout.title}")


def _recognise(state: dict[str, np.ndarray]) -> Weights | None:
    """The weights by the layout that knows most of them; None if they are a chain of layers."""
    found = max(_readings(state), key=lambda weights: -len(weights.unknown), default=None)
    if found is None or 2 * len(found.unknown) > len(state) or not found.blocks():
        if chain.is_chain(state):
            return None
        for other in (prefix for prefix in _members(state)):
            raise ValueError(
                f"these are the weights of several networks; pass one at a time, for instance "
                f"those whose names begin with {other!r}, and average what they answer"
            )
        nearest = f" {found.layout.title}, which has no {found.unknown[0]}" if found else ""
        raise ValueError(
            f"no layout fits these weights; the nearest:{nearest or ' none'}. Known: "
            f"{', '.join(layout.title for layout in LAYOUTS)}. Of another network, export "
            "ONNX, and read it with `models.from_onnx`"
        )
    return found


def _readings(state: dict[str, np.ndarray]) -> Iterator[Weights]:
    """The weights by every layout, without every prefix that most of their names have."""
    for prefix in _prefixes(state):
        inner = {name.removeprefix(prefix): value for name, value in state.items()}
        for layout in LAYOUTS:
            weights = Weights(inner, layout)
            if len(weights.unknown) < len(state) and layout.when(weights):
                yield weights


def _prefixes(state: Mapping[str, Any]) -> list[str]:
    """'' and beginnings, up to a dot, of more than half of the names; the shortest first."""
    counts: dict[str, int] = {}
    for name in state:
        parts = name.split(".")
        for i in range(len(parts)):
            prefix = "".join(f"{part}." for part in parts[:i])
            counts[prefix] = counts.get(prefix, 0) + 1
    return sorted((p for p, count in counts.items() if 2 * count > len(state)), key=len)


def _members(state: dict[str, np.ndarray]) -> Iterator[str]:
    """The prefixes of networks that lie side by side: 'models.0.' beside 'models.1.'."""
    numbered = (re.match(r"(.*?\d+\.)", name) for name in state)
    for prefix in dict.fromkeys(match[1] for match in numbered if match):
        inside = {n: value for n, value in state.items() if n.startswith(prefix)}
        for weights in _readings(inside):
            if not weights.unknown and weights.blocks() and "head" in weights:
                yield prefix
                break


def _classes(weights: Weights) -> int:
    name = weights.name("head/kernel")
    value = weights.state.get(name)
    return weights.shape("head", 4 if value is not None and value.ndim == 4 else 2)[0]


def _has_bias(weights: Weights) -> bool:
    """Whether the last layer has one, or is a convolution, which is nobody's cosine."""
    bias, kernel = weights.name("head/bias"), weights.name("head/kernel")
    return bias in weights.state or weights.state[kernel].ndim == 4


def _fill(module: Classifier, weights: Weights, image: tuple[int, int, int]) -> dict[str, Any]:
    """Our variables from PyTorch's weights, after checking that all are there and fit."""
    flat, left, missing, wrong = {}, dict(weights.state), [], []
    shapes = _shapes(module, image)  # pyright: ignore[reportArgumentType] - modules do hash
    for path, leaf in shapes.items():
        key = weights.name("/".join(path[1:]))
        value = left.pop(key, _default(path, key, leaf.shape, weights.state))
        if value is None:
            missing.append(key)
            continue
        if path[-1] == "kernel":  # (D, C, k, k) -> (k, k, C, D) and (K, D) -> (D, K)
            value = value.transpose()
            value = value.swapaxes(0, 1) if value.ndim == 4 else value
            if len(leaf.shape) == 2 and value.ndim == 4:  # a convolution of patches, or of pixels
                value = value.reshape(-1, value.shape[-1])
        elif value.squeeze().shape == leaf.shape:
            value = value.reshape(leaf.shape)
        if value.shape != leaf.shape:
            wrong.append(key)
        flat[path] = jnp.asarray(value, jnp.float32)
    found = {"missing": missing, "unexpected": list(left), "of another shape": wrong}
    if any(found.values()):
        raise ValueError(
            f"these weights do not fit a {weights.layout.title}; "
            + "; ".join(f"{kind}: {some(keys)}" for kind, keys in found.items() if keys)
        )
    return traverse_util.unflatten_dict(flat)


def _default(
    path: tuple[str, ...], key: str, shape: tuple[int, ...], state: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """What a tensor is that may be left out: a last bias, or both of a BN that has neither."""
    if path[1:] == ("head", "bias"):
        return np.zeros(shape)
    module = key.rpartition(".")[0]
    plain = not any(f"{module}.{name}" in state for name in ("weight", "bias"))
    if plain and f"{module}.running_mean" in state and path[-1] in ("scale", "bias"):
        return np.full(shape, path[-1] == "scale")
    return None


@functools.cache
def _shapes(
    module: Classifier, image: tuple[int, int, int]
) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    """The shapes of the network's variables, by path."""
    tree = jax.eval_shape(lambda key: init(module, key, image), jax.random.key(0))
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(tree)
    return flat
