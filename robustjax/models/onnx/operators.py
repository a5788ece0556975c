"""What each operator of ONNX computes: its inputs are positional, its attributes keywords."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from robustjax.models.onnx import elementwise, layers, shapes


class Operator(NamedTuple):
    """A function of arrays, and what it asks of a node.

    Attributes:
      function: (inputs, None where one is left out; attributes) -> the first output, or a tuple.
      host: the places of inputs that must not depend on the images, since they decide shapes.
      most: how many inputs it takes.
      names: of its attributes.
      by_version: whether it is to be told the `opset`.
    """

    function: Callable[..., Any]
    host: frozenset[int]
    most: float
    names: frozenset[str]
    by_version: bool

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Operator:
        """What a function's signature says; annotated with `Host`, an input decides shapes."""
        found = inspect.signature(function).parameters.values()
        inputs = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
        names = frozenset(p.name for p in found if p.kind is p.KEYWORD_ONLY)
        any_number = any(p.kind is p.VAR_POSITIONAL for p in inputs)
        host = frozenset(place for place, p in enumerate(inputs) if "Host" in str(p.annotation))
        most = float("inf") if any_number else len(inputs)
        return cls(function, host, most, names - {"opset"}, "opset" in names)

    def check(self, title: str, inputs: int, attributes: Mapping[str, Any]) -> None:
        """Raise ValueError if a node asks for more than the function does."""
        if unknown := sorted(set(attributes) - self.names - IGNORED):
            raise ValueError(f"{title} has {unknown[0]!r}, which is not known: export without it")
        if inputs > self.most:
            raise ValueError(f"{title} has {inputs} inputs, and only {self.most} are known")


IGNORED = {"spatial", "stash_type", "storage_order", "ratio", "seed", "momentum"}
IGNORED |= {"saturate", "round_mode", "kernel_shape", "softmax_precision", "qk_matmul_output_mode"}
"""Attributes that do not change what is computed here."""

OPERATORS = {
    name: Operator.of(function)
    for module in (elementwise, layers, shapes)
    for name, function in module.FUNCTIONS.items()
}
"""All that are known, by ONNX's names."""
