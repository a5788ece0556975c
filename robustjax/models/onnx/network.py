"""Networks as ONNX files, which PyTorch, TensorFlow and others export."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from robustjax.checks import checked
from robustjax.models.onnx.file import Content, Node, read
from robustjax.models.onnx.operators import OPERATORS
from robustjax.models.wrappers import channels_first as with_channels_first
from robustjax.promotion import usual

CHANNELS = (1, 3, 4)
"""Of an image: grey, RGB, RGB and depth or opacity."""


@dataclasses.dataclass(frozen=True)
class Graph:
    """A graph without its weights: (weights, images) -> its output.

    Two of the same `key` are equal, and share their compiled programs.
    """

    key: str
    content: Content = dataclasses.field(compare=False, repr=False)

    def __call__(self, weights: Mapping[str, jax.Array], images: jax.Array) -> jax.Array:
        """Each image by itself, as a batch of one, which most exporters build in."""
        shape = (self.content.shape or (None,) * images.ndim)[1:]
        given = images.shape[1:]
        fits = len(shape) == len(given) and all(map(_fits, shape, given))
        if not fits:
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise ValueError(f"the ONNX graph reads images of shape ({wanted}), got {given}")
        return jax.vmap(lambda image: self.run(weights, image[None])[0])(images)

    def run(self, weights: Mapping[str, Any], batch: jax.Array) -> jax.Array:
        """The output for what the file's own input is."""
        content = self.content
        values: dict[str, Any] = {"": None, **content.constants, **weights}
        values[content.input] = batch.astype(content.dtype)
        for node in content.nodes:
            found = compute(node, [values[name] for name in node.inputs], content.opset)
            values |= zip(node.outputs, found, strict=False)
        output = jnp.asarray(values[content.output])
        if not output.ndim or len(output) != len(batch):
            raise ValueError(
                f"{content.output!r} has shape {output.shape} for a batch of {len(batch)}: export "
                "the network with a dynamic batch axis, or for a batch of one"
            )
        return output.astype(jnp.float32)


def _fits(wanted: int | None, size: int) -> bool:
    return wanted is None or wanted == size


def compute(node: Node, inputs: list[Any], opset: int) -> tuple[Any, ...]:
    """The outputs of a node.

    Raises:
      ValueError: its inputs do not fit, or what decides a shape depends on the pixels.
    """
    operator = OPERATORS[node.operator]
    for place in operator.host:
        if place < len(inputs) and isinstance(inputs[place], jax.Array):
            raise ValueError(
                f"{node}: {node.inputs[place]!r} depends on the pixels, and decides a shape: "
                "export the network without it"
            )
    more = {name: value for name, value in node.attributes.items() if name in operator.names}
    if operator.by_version:
        more["opset"] = opset
    if node.operator == "Split":
        more["outputs"] = len(node.outputs)
    try:
        with usual():
            found = operator.function(*inputs, **more)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{node}: {error}") from error
    found = found if isinstance(found, tuple) else (found,)
    return tuple(a if isinstance(a, jax.Array) else np.asarray(a) for a in found)


@checked
def from_onnx(
    source: str | os.PathLike[str] | bytes,
    *,
    channels_first: bool | None = None,
    output: str | None = None,
) -> Partial:
    """Read a network from an ONNX file, for images (B, H, W, C) as everywhere.

    Opsets from 11, and the operators of convolutional networks and vision transformers. Any number
    of images runs, also where the file was exported for a batch of one. A network that expects
    standardised pixels is wrapped: `models.normalized(models.from_onnx("net.onnx"), mean, std)`.

    Args:
      source: the file, or its bytes. Weights stored beside a file are read from its own folder.
      channels_first: whether the graph reads (B, C, H, W); None: the shape that it declares says.
      output: the name of the tensor to return; None: the first output, and if a Softmax is the
        last node, the logits that it reads.

    Returns:
      logits_fn: images -> logits (B, K); its weights are data, and networks of one graph share
        their compiled programs.

    Raises:
      FileNotFoundError: there is no such file.
      ModuleNotFoundError: the package `onnx` is not installed.
      ValueError: the file is damaged, is of an older opset, is in training mode, or has a node that
        is not known here: the error names it.

    Guarantees:
      The logits are those of ONNX's reference implementation, up to the rounding of float32.

    >>> logits_fn = rj.models.from_onnx("resnet18.onnx")  # doctest: +SKIP
    >>> rj.models.from_onnx("no-such-file.onnx", output="logits")
    Traceback (most recent call last):
    FileNotFoundError: the source 'no-such-file.onnx' is no ONNX file
    """
    title = "the model" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise FileNotFoundError(f"the source {title!r} is no ONNX file")
    try:
        return _loaded(read(source, output), channels_first)
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from error


def _loaded(content: Content, channels_first: bool | None) -> Partial:
    graph = Graph(content.key, content)
    weights = {name: jnp.asarray(array) for name, array in content.weights.items()}
    images = content.shape is None or len(content.shape) == 4
    if images and channels_first is None:
        channels_first = _is_channels_first(content.shape)
    _check(graph, weights)
    logits_fn = Partial(graph, weights)
    return with_channels_first(logits_fn) if images and channels_first else logits_fn


def _is_channels_first(shape: tuple[int | None, ...] | None) -> bool:
    """What the declared shape says of the axis of the channels."""
    first, last = (None, None) if shape is None else (shape[1], shape[-1])
    if (first in CHANNELS) == (last in CHANNELS):
        raise ValueError(
            f"the graph declares images of shape {shape}, which does not tell its channels: pass "
            "channels_first=True for (B, C, H, W), False for (B, H, W, C)"
        )
    return first in CHANNELS


def _check(graph: Graph, weights: Mapping[str, jax.Array]) -> None:
    """Raise ValueError if the graph does not run on a single image of its shape, without running.

    A graph that was exported for several images must be the same function of a single one.
    """
    shape = graph.content.shape
    if shape is None or None in shape[1:]:
        return
    size, count = [n for n in shape[1:] if n is not None], shape[0] or 1
    try:
        jax.eval_shape(graph, weights, jax.ShapeDtypeStruct((2, *size), jnp.float32))
    except ValueError as error:
        raise ValueError(f"{error}; {_several(count)}" if count > 1 else str(error)) from error
    if count == 1:
        return
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(count, *size)), jnp.float32)
    together, alone = jax.jit(graph.run)(weights, images), graph(weights, images)
    if not np.allclose(together, alone, rtol=1e-3, atol=1e-3 * np.abs(together).max()):
        raise ValueError(_several(count))


def _several(count: int) -> str:
    return (
        f"it was exported for batches of {count} images only: export it with a dynamic batch axis "
        "(torch.onnx.export(..., dynamic_axes={'input': {0: 'batch'}})), or for one image"
    )
