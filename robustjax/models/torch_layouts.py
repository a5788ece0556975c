"""Networks trained in PyTorch, by the names of their weights: ResNet, PreActResNet, WideResNet.

The layouts are those of pytorch-cifar, TRADES and RobustBench. A layout maps the parts of one of
our networks to PyTorch's names; widths, depth and classes follow from the shapes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.tree_util import Partial

from robustjax.checks import checked
from robustjax.models.classifier import Classifier
from robustjax.models.factory import apply, init
from robustjax.models.heads import LinearHead
from robustjax.models.layers import Conv, torch_uniform
from robustjax.models.residual import (
    Block,
    PreActBlock,
    ProjectedBlock,
    RawShortcutBlock,
    Residual,
)
from robustjax.models.torch_file import read_state_dict

MEANS, STDS = ("mean", "mu", "new_mean"), ("std", "sigma", "new_std")
UNUSED = ("sub_block1.", "num_batches_tracked")
"""Weights that no forward pass reads: TRADES' WideResNet has a block that it never calls."""


DEEPEST = 512
"""Blocks of a network: a ResNet of 1,001 layers has 333."""


class Layout(NamedTuple):
    """PyTorch's names for the parts of a network; `{}` are the stage, from 1, and block, from 0."""

    family: str
    block: str
    norm: str
    head: str
    shortcut: str
    shortcut_norm: str = ""


RESNET = Layout("ResNet", "layer{}.{}", "bn1", "linear", "shortcut.0", "shortcut.1")
PREACT = Layout("PreActResNet", "layer{}.{}", "bn", "linear", "shortcut.0")
WIDE = Layout("WideResNet", "block{}.layer.{}", "bn1", "fc", "convShortcut")
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


@checked
def from_torch(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    activation: str = "relu",
    shortcut: Literal["activated", "raw"] | None = None,
) -> tuple[Partial, Partial]:
    """Load a network trained in PyTorch, for images (B, H, W, C) in [0, 1] as everywhere.

    Families: ResNet with basic blocks and PreActResNet (any number of blocks) as in pytorch-cifar
    and RobustBench, the latter with or without a last BN, and WideResNet as in TRADES and
    RobustBench. Prefixes ('module.', 'model.') are stripped. PyTorch itself is not needed.

    Args:
      source: a .pt, .pth or .safetensors file, or a state_dict of CPU tensors or arrays.
      mean, std: (C,), of the normalisation before the network, in [0, 1] pixels; None if there was
        none, or if it is among the weights (buffers named mean and std, or mu and sigma).
      activation: see `layers.activation`; it cannot be inferred from the weights.
      shortcut: for PreActResNet only, and not inferable either: the projections of its shortcuts
        read the block's input after BN and activation ('activated': pytorch-cifar, RobustBench's
        PreActBlockV2) or before ('raw': RobustBench's PreActBlock).

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
    >>> rj.models.from_torch({"fc.weight": np.zeros((10, 512))})
    Traceback (most recent call last):
    ValueError: these are not the weights of a ResNet, PreActResNet or WideResNet...
    """
    if not isinstance(source, Mapping):
        state = read_state_dict(source)
        try:
            return from_torch(state, mean=mean, std=std, activation=activation, shortcut=shortcut)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
    if not all(isinstance(name, str) for name in source):
        raise ValueError(f"the names of the weights must be text, got {_some(map(repr, source))}")
    state, layout = _recognise({name: np.asarray(value) for name, value in source.items()})
    mean, std = _normalisation(state, MEANS, mean), _normalisation(state, STDS, std)
    module = _build(state, layout, activation, shortcut, mean, std)
    return apply(module, _fill(module, state, layout))


def _normalisation(state, names, given) -> tuple[float, ...] | None:
    """The mean or std of the input's normalisation: given, or a buffer, removed from `state`."""
    keys = [key for key in state if key.split(".")[-1] in names]
    if not keys:
        return None if given is None else tuple(map(float, given))
    channels = _shape(state, "conv1.weight", 4)[1]
    if state[keys[0]].size != channels:
        raise ValueError(
            f"{keys[0]} must have a number for each of {channels} channels, got shape "
            f"{state[keys[0]].shape}"
        )
    own = tuple(state.pop(keys[0]).ravel().tolist())
    if given is not None:
        raise ValueError(f"the weights contain {keys[0]} = {own}; do not pass {names[0]}")
    return own


def _recognise(state: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Layout]:
    """The state without its prefix and without unused weights, and the layout."""
    for layout in (WIDE, RESNET, PREACT):
        first = f"{layout.block.format(1, 0)}.conv1.weight"
        for key in state:
            prefix = key.removesuffix(first)
            if key != prefix and f"{prefix}conv1.weight" in state:
                if layout is RESNET and f"{prefix}bn1.weight" not in state:
                    continue  # PREACT
                names = {name: name.removeprefix(prefix) for name in state}
                block, counter = UNUSED
                unused = {n for n in state if names[n].startswith(block) or n.endswith(counter)}
                return {names[n]: value for n, value in state.items() if n not in unused}, layout
    raise ValueError(
        "these are not the weights of a ResNet, PreActResNet or WideResNet as in pytorch-cifar, "
        "TRADES or RobustBench: there is no conv1 beside layer1.0 or block1.layer.0 among "
        f"{_some(state)}"
    )


def _shape(state: Mapping[str, np.ndarray], name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor that decides how large the network is."""
    if name not in state:
        raise ValueError(f"these weights have no {name}")
    shape = state[name].shape
    if len(shape) != axes or 0 in shape:
        raise ValueError(f"{name} must have {axes} axes and hold numbers, got shape {shape}")
    return shape


def _build(state, layout, activation, shortcut, mean, std) -> Classifier:
    widths, counts = [], []
    while (first := f"{layout.block.format(len(widths) + 1, 0)}.conv1.weight") in state:
        widths.append(_shape(state, first, 4)[0])
        counts.append(0)
        while f"{layout.block.format(len(widths), counts[-1])}.conv1.weight" in state:
            counts[-1] += 1
    if sum(counts) > DEEPEST:
        raise ValueError(f"these weights are of {sum(counts)} blocks; at most {DEEPEST} are read")
    if (layout is PREACT) != (shortcut is not None):
        raise ValueError(
            "pass what the projections of this PreActResNet's shortcuts read: shortcut='activated' "
            "(pytorch-cifar, RobustBench's PreActBlockV2) or 'raw' (RobustBench's PreActBlock)"
            if layout is PREACT
            else f"`shortcut` is for a PreActResNet; these are weights of a {layout.family}"
        )
    blocks: dict[str | None, Block] = {
        "activated": PreActBlock,
        "raw": RawShortcutBlock,
        None: ProjectedBlock if layout is RESNET else PreActBlock,
    }
    return Classifier(
        stem=Conv(_shape(state, "conv1.weight", 4)[0]),
        body=Residual(
            blocks[shortcut],
            tuple(widths),
            tuple(counts),
            activation,
            torch_uniform,
            final_norm=layout is not PREACT or f"{layout.norm}.weight" in state,
        ),
        head=LinearHead(_shape(state, f"{layout.head}.weight", 2)[0]),
        mean=mean,
        std=std,
    )


def _key(path: tuple[str, ...], layout: Layout) -> str:
    """params/body/stage1_block2/norm1/scale -> PyTorch's layer1.1.bn1.weight."""
    _, *modules, leaf = path
    names = {
        "stem": "conv1",
        "head": layout.head,
        "norm": layout.norm,
        "norm1": "bn1",
        "norm2": "bn2",
        "shortcut": layout.shortcut,
        "shortcut_norm": layout.shortcut_norm,
    }
    parts = []
    for module in modules:
        if module.startswith("stage"):
            stage, block = module.removeprefix("stage").split("_block")
            parts.append(layout.block.format(stage, int(block) - 1))
        elif module != "body":
            parts.append(names.get(module, module))
    return ".".join([*parts, LEAVES.get(leaf, leaf)])


def _fill(module: Classifier, state: dict[str, np.ndarray], layout: Layout) -> dict[str, Any]:
    """Our variables from PyTorch's weights, after checking that all are there and fit."""
    flat, left, missing, wrong = {}, dict(state), [], []
    channels = state["conv1.weight"].shape[1]
    shapes = _shapes(module, channels)  # pyright: ignore[reportArgumentType] - modules do hash
    for path, leaf in shapes.items():
        key = _key(path, layout)
        value = left.pop(key, np.zeros(leaf.shape) if path[1:] == ("head", "bias") else None)
        if value is None:
            missing.append(key)
            continue
        if path[-1] == "kernel":  # (D, C, k, k) -> (k, k, C, D) and (K, D) -> (D, K)
            value = value.transpose()
            value = value.swapaxes(0, 1) if value.ndim == 4 else value
        if value.shape != leaf.shape:
            wrong.append(key)
        flat[path] = jnp.asarray(value, jnp.float32)
    found = {"missing": missing, "unexpected": list(left), "of another shape": wrong}
    if any(found.values()):
        raise ValueError(
            f"these weights do not fit a {layout.family} with basic blocks; "
            + "; ".join(f"{kind}: {_some(keys)}" for kind, keys in found.items() if keys)
        )
    return traverse_util.unflatten_dict(flat)


@functools.cache
def _shapes(module: Classifier, channels: int) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    """The shapes of the network's variables, by path; they do not depend on the image's size."""
    tree = jax.eval_shape(lambda key: init(module, key, (32, 32, channels)), jax.random.key(0))
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(tree)
    return flat


def _some(keys) -> str:
    keys = list(keys)
    return ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
