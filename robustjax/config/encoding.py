"""Configs as JSON, and back."""

from __future__ import annotations

import base64
import dataclasses
import functools
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from robustjax.checks import checked
from robustjax.config.declare import CLASSES, type_name

Rewrite = Callable[[Mapping[str, Any], dict[str, Any]], dict[str, Any]]
_REWRITES: list[Rewrite] = []


def encode(value: Any) -> Any:
    """Configs -> JSON: {"type": class name, "fields": {...}}; a function becomes its name.

    Names are bare for robustjax's own classes and functions and include the module for all others.
    Arrays keep all their numbers. What `decode` cannot rebuild is described: any other dataclass as
    if it were a config, and an array of more than 262,144 numbers by its type and shape.

    >>> rj.config.encode(rj.threats.Linf(0.1))["type"]
    'Linf'
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type_name(type(value)), "fields": fields}
    if isinstance(value, tuple | list):
        return [encode(v) for v in value]
    if isinstance(value, Mapping):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, functools.partial):
        return {
            "partial": encode(value.func),
            "args": encode(value.args),
            "keywords": encode(value.keywords),
        }
    if callable(value):
        return _name(value)
    if isinstance(value, np.ndarray | jax.Array) and value.ndim:
        return _write_array(np.asarray(value))
    return value


def _write_array(array: np.ndarray) -> Any:
    """The numbers of an array if they are few, else their packed bytes."""
    if array.size > STORED:
        return f"{array.dtype}{list(array.shape)}"
    written = {"array": str(array.dtype), "shape": list(array.shape)}
    if array.size <= LISTED:
        return written | {"numbers": array.reshape(-1).tolist()}
    packed = zlib.compress(np.ascontiguousarray(array).tobytes(), 9)
    return written | {"packed": base64.b64encode(packed).decode()}


def _read_array(data: Mapping[str, Any]) -> np.ndarray:
    kind, shape = np.dtype(data["array"]), data["shape"]
    if "numbers" in data:
        return np.asarray(data["numbers"], kind).reshape(shape)
    packed = zlib.decompress(base64.b64decode(data["packed"]))
    return np.frombuffer(packed, kind).reshape(shape)


LISTED, STORED = 16, 1 << 18
"""The largest arrays that JSON holds as numbers, and as packed bytes."""


def _name(function: Callable) -> str:
    """A function's name for JSON; a callable object has only a description, its type with ()."""
    if not hasattr(function, "__qualname__"):
        return f"{type(function).__name__}()"
    module = getattr(function, "__module__", None) or "builtins"
    ours = module.partition(".")[0] == "robustjax"
    return function.__name__ if ours else f"{module}.{function.__qualname__}"


@checked
def rewrites_older(rewrite: Rewrite) -> Rewrite:
    """Register what `decode` makes of fields that an older version wrote.

    >>> @rj.config.rewrites_older
    ... def rename(known, fields):
    ...     return {"width" if name == "breadth" else name: v for name, v in fields.items()}

    Args:
      rewrite: (fields of the class by name, encoded fields of the file) -> encoded fields.
    """
    _REWRITES.append(rewrite)
    return rewrite


@checked
def decode(data: Any, functions: Mapping[str, Callable]) -> Any:
    """Rebuild what `encode` wrote; `functions` resolves the fields that hold a function.

    Users' own classes and functions are found once their modules are imported; nothing is imported
    here.

    Raises:
      ValueError: an unknown type, field or function name.

    >>> rj.config.decode(rj.config.encode(rj.threats.Linf(0.1)), {}) == rj.threats.Linf(0.1)
    True
    """
    if isinstance(data, list):
        return tuple(decode(v, functions) for v in data)
    if not isinstance(data, Mapping):
        return data
    if set(data) == {"partial", "args", "keywords"}:
        args, keywords = decode(data["args"], functions), decode(data["keywords"], functions)
        return functools.partial(_function(data["partial"], functions), *args, **keywords)
    if {"array", "shape"} < set(data):
        return _read_array(data)
    if set(data) != {"type", "fields"}:
        return {k: decode(v, functions) for k, v in data.items()}
    if data["type"] not in CLASSES:
        raise ValueError(f"unknown config type {data['type']!r}; {_advice(data['type'], CLASSES)}")
    cls, values = CLASSES[data["type"]], {}
    known = {f.name: f for f in dataclasses.fields(cls)}
    fields = dict(data["fields"])
    for rewrite in _REWRITES:
        fields = rewrite(known, fields)
    for name, value in fields.items():
        if name not in known:
            raise ValueError(f"{data['type']} has no field {name!r}; fields: {', '.join(known)}")
        values[name] = decode(value, functions)
        if callable(known[name].default) and isinstance(value, str):
            values[name] = _function(value, functions)
    return cls(**values)


def _function(name: str, functions: Mapping[str, Callable]) -> Callable:
    """Find a function by its bare name, or by its full name in a module that has been imported."""
    if name in functions:
        return functions[name]
    module, _, own = name.rpartition(".")
    of_user = module.partition(".")[0] not in ("", "robustjax", *sys.stdlib_module_names)
    found = getattr(sys.modules.get(module), own, None) if of_user else None
    if not callable(found) or _name(found) != name:
        raise ValueError(f"unknown function {name!r}; {_advice(name, functions)}")
    return found


def _advice(name: str, known: Mapping[str, Any]) -> str:
    module = name.rpartition(".")[0]
    return f"import {module} first" if module else f"known: {', '.join(sorted(known))}"
