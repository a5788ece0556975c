"""ONNX files as graphs: its nodes, its weights, and the arrays that belong to the graph."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robustjax.lazy import needed
from robustjax.models.onnx.arrays import TRAINING
from robustjax.models.onnx.operators import OPERATORS, Operator

OLDEST = 11
"""The first opset that is read."""

RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"} | {
    "RandomUniform",
    "RandomUniformLike",
}


class Node(NamedTuple):
    """One operation of a graph; a name that is empty stands for an input that is left out."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.operator} (node {self.name or self.outputs[0]!r})"


class Content(NamedTuple):
    """What a file holds, without what the output does not need.

    Attributes:
      nodes: in an order in which they can be computed.
      constants: arrays that decide shapes, integers, and single numbers.
      weights: all other arrays.
      input, output: the names of the images and of the result.
      shape: that the images must have, None where any size will do; None: unknown.
      dtype: of the images.
      opset: the version of the operators.
    """

    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    input: str
    output: str
    shape: tuple[int | None, ...] | None
    dtype: np.dtype
    opset: int

    @property
    def key(self) -> str:
        """The same for equal graphs, whatever their weights."""
        arrays = [(n, a.dtype.str, a.shape, a.tobytes()) for n, a in sorted(self.constants.items())]
        parts = [tuple(node) for node in self.nodes], arrays, self.input, self.output, self.opset
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def read(source: str | os.PathLike[str] | bytes, output: str | None = None) -> Content:
    """The graph of an ONNX file.

    Args:
      source: the file, or its bytes; weights beside a file must lie in its folder.
      output: the name of the tensor to compute; None: the first output, without a Softmax at its
        end.

    Raises:
      OSError: there is no such file.
      ValueError: the file is damaged, is older than opset 11, or computes what is not known here.
    """
    onnx = needed("onnx", "from_onnx")
    if isinstance(source, bytes):
        data, folder = source, None
    else:
        data, folder = Path(source).read_bytes(), Path(source).resolve().parent
    try:
        model = onnx.load_model_from_string(data)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"it is damaged or not an ONNX file: {error}") from error
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST:
        raise ValueError(
            f"it is of opset {opset}, and {OLDEST} is the oldest that is read: "
            "onnx.version_converter.convert_version(model, 18) rewrites it"
        )
    graph = model.graph
    if graph.sparse_initializer:
        raise ValueError("it has sparse weights: export dense ones")
    stored = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1 or not graph.output:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ValueError(f"export a function of images alone; the inputs of this one are {names}")
    nodes = [_node(onnx, node) for node in graph.node]
    for node in nodes:
        if node.operator == "Constant":
            stored[node.outputs[0]] = node.attributes["value"]
    nodes = [node for node in nodes if node.operator != "Constant"]
    makers = {name: node for node in nodes for name in node.outputs if name}
    output = _output(output or graph.output[0].name, output is None, makers)
    nodes = _needed(nodes, makers, output, {inputs[0].name, *stored})
    operators = {node.operator: _operator(node) for node in nodes}
    for node in nodes:
        operators[node.operator].check(str(node), len(node.inputs), node.attributes)
        if node.operator == "BatchNormalization" and any(node.outputs[1:]):
            raise ValueError(f"{node}: {TRAINING}")
    used = {name for node in nodes for name in node.inputs} & set(stored)
    arrays = {name: _array(onnx, stored[name], folder) for name in sorted(used)}
    settled = _settled(nodes, makers, operators)
    constants = {n: a for n, a in arrays.items() if n in settled or not a.ndim or not _real(a)}
    return Content(
        tuple(nodes),
        constants,
        {name: array for name, array in arrays.items() if name not in constants},
        inputs[0].name,
        output,
        _shape(inputs[0].type.tensor_type),
        onnx.helper.tensor_dtype_to_np_dtype(inputs[0].type.tensor_type.elem_type),
        opset,
    )


def _real(array: np.ndarray) -> bool:
    return not np.issubdtype(array.dtype, np.integer) and array.dtype != bool


def _node(onnx: Any, node: Any) -> Node:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    attributes = {name: _plain(value) for name, value in attributes.items()}
    operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    if operator == "Constant":
        ((kind, value),) = attributes.items()
        if kind == "value_float":
            value = np.float32(value)
        elif kind == "value_floats":
            value = np.array(value, np.float32)
        elif kind.startswith("value_int"):
            value = np.array(value, np.int64)
        attributes = {"value": value}
    if operator == "ConstantOfShape" and attributes:
        attributes = {"value": onnx.numpy_helper.to_array(attributes["value"])}
    return Node(operator, node.name, tuple(node.input), tuple(node.output), attributes)


def _plain(value: Any) -> Any:
    """An attribute in Python's own types; a tensor stays one until somebody needs its numbers."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(map(_plain, value))
    return value


def _output(name: str, logits: bool, makers: Mapping[str, Node]) -> str:
    """The name of the result: with `logits`, what a Softmax at the end reads."""
    if name not in makers:
        raise ValueError(
            f"it computes no {name!r}; the last of its tensors are {', '.join(list(makers)[-4:])}"
        )
    last = makers[name]
    while logits and last.operator in ("Identity", "Softmax") and last.inputs[0] in makers:
        name = last.inputs[0]
        last = makers[name]
    return name


def _needed(
    nodes: Iterable[Node], makers: Mapping[str, Node], output: str, given: set[str]
) -> list[Node]:
    """The nodes that the output depends on, each after those it reads."""
    wanted, waiting = set(), [output]
    while waiting:
        name = waiting.pop()
        if name in given or not name or name in wanted:
            continue
        if name not in makers:
            raise ValueError(f"it reads {name!r}, which nothing computes: the file is damaged")
        wanted.add(name)
        waiting += makers[name].inputs
    kept = [node for node in nodes if wanted & set(node.outputs)]
    for node in kept:
        for name in node.outputs[1:]:
            if name in wanted and node.operator != "Split":
                raise ValueError(f"only the first output of {node} is computed, and {name} is used")
    return kept


def _operator(node: Node) -> Operator:
    if node.operator in RANDOM:
        raise ValueError(
            f"{node} draws random numbers: export the network in evaluation mode (model.eval())"
        )
    if node.operator not in OPERATORS:
        raise ValueError(
            f"{node} is not known: export without it (another opset or exporter, or onnxsim), or "
            "write the network in JAX and pass its function"
        )
    return OPERATORS[node.operator]


def _settled(
    nodes: Iterable[Node], makers: Mapping[str, Node], operators: Mapping[str, Operator]
) -> set[str]:
    """The names of all that decides a shape."""
    waiting = [
        name
        for node in nodes
        for place, name in enumerate(node.inputs)
        if place in operators[node.operator].host
    ]
    found = set()
    while waiting:
        name = waiting.pop()
        if name and name not in found:
            found.add(name)
            if name in makers and makers[name].operator not in ("Shape", "Size"):
                waiting += makers[name].inputs
    return found


def _array(onnx: Any, tensor: Any, folder: Path | None) -> np.ndarray:
    """The numbers of a tensor, which may lie in another file of the model's folder."""
    if isinstance(tensor, np.ndarray | np.generic):
        return np.asarray(tensor)
    place = {entry.key: entry.value for entry in tensor.external_data}.get("location")
    if place is not None:
        if folder is None:
            raise ValueError(f"its weights lie in {place!r}: pass the path of the file, not bytes")
        if not (folder / place).resolve().is_relative_to(folder):
            raise ValueError(f"its weights lie in {place!r}, outside its own folder")
        if not (folder / place).is_file():
            raise ValueError(f"there is no {place!r} beside it, where its weights lie")
    try:
        return onnx.numpy_helper.to_array(tensor, str(folder or ""))
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"the tensor {tensor.name!r} is damaged: {error}") from error


def _shape(kind: Any) -> tuple[int | None, ...] | None:
    if not kind.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
