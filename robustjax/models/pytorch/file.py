"""PyTorch's weight files, read without PyTorch and without running code from the file.

A .pt file is a pickle of tensors whose numbers are stored separately: in a zip archive since
PyTorch 1.6, one after the other before. The unpickler here knows only tensors and dictionaries; a
file that needs anything else is refused, as by `torch.load(weights_only=True)`. A .safetensors file
is a JSON header followed by the numbers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from robustjax.archives import members
from robustjax.models.pytorch import unpickle
from robustjax.models.pytorch.unpickle import Refused, Source, Tensor, counts

_TYPES = (
    ("F64", "DoubleStorage", "<f8"),
    ("F32", "FloatStorage", "<f4"),
    ("F16", "HalfStorage", "<f2"),
    ("BF16", "BFloat16Storage", jnp.bfloat16),
    ("I64", "LongStorage", "<i8"),
    ("I32", "IntStorage", "<i4"),
    ("I16", "ShortStorage", "<i2"),
    ("I8", "CharStorage", "i1"),
    ("U8", "ByteStorage", "u1"),
    ("BOOL", "BoolStorage", "?"),
)
SAFETENSORS = {name: np.dtype(dtype) for name, _, dtype in _TYPES}
STORAGES = {name: np.dtype(dtype) for _, name, dtype in _TYPES}
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file written before PyTorch 1.6
WRAPPERS = ("state_dict", "model_state_dict", "net", "model")


HEADER = 1 << 22
"""Bytes of a .safetensors file that may describe its tensors."""


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the tensors of a .pt, .pth or .safetensors file by name.

    If a training script wrapped them ({'net': ..., 'epoch': 3}), the entry `state_dict`,
    `model_state_dict`, `net` or `model` is read.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, needs code to run, or holds no named tensors.

    Guarantees:
      No code named by the file runs: only arrays, numbers, strings and their containers are built.
      The arrays are those of `torch.load(path, weights_only=True)`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"the source {str(path)!r} is no weights file")
    data = Path(path).read_bytes()
    try:
        if Path(path).suffix == ".safetensors":
            return _read_safetensors(data)
        return _read_zip(data) if data.startswith(b"PK") else _read_legacy(data)
    except Refused as error:
        raise ValueError(f"{path} {error}") from None
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} is damaged or not a PyTorch weights file: {error!r}") from error


def _read_zip(data: bytes) -> dict[str, np.ndarray]:
    places = members(data, check=True)
    (name,) = [name for name in places if name.endswith("/data.pkl")]
    folder = name.removesuffix("data.pkl")
    order = data[places.get(f"{folder}byteorder", slice(0))]
    if order not in (b"", b"little"):
        raise Refused(f"holds {order[:20].decode()}-endian numbers")
    state = _state_dict(unpickle.load(Source(data[places[name]]), {}))
    return _arrays(state, data, {k: places[f"{folder}data/{k}"] for k in _keys(state)})


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    file, storages = Source(data), {}
    if unpickle.load(file, {}) != MAGIC:
        raise ValueError("it does not begin like a file of torch.save")
    _version, _system, content, keys = (unpickle.load(file, storages) for _ in range(4))
    at, places = file.tell(), {}
    for key in keys:  # the numbers come after the tensors that view them
        numel = int.from_bytes(data[at : at + 8], "little")
        if numel != storages[key].numel:
            raise ValueError("a storage has another size than declared")
        stop = at + 8 + numel * STORAGES[storages[key].kind].itemsize
        places[key], at = slice(at + 8, stop), stop
    return _arrays(_state_dict(content), data, places)


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The named tensors among what a training script saved."""
    for _ in range(len(WRAPPERS)):
        if not isinstance(content, dict):
            raise Refused(f"holds a {type(content).__name__}; save `model.state_dict()` instead")
        if content and all(type(value) is Tensor for value in content.values()):
            break
        inside = next((key for key in WRAPPERS if key in content), None)
        if inside is None:
            keys = ", ".join(repr(key)[:60] for key in list(content)[:10])
            raise Refused(f"has no state_dict among {keys}; load it yourself and pass the dict")
        content = content[inside]
    if not all(type(name) is str for name in content):
        raise Refused("holds tensors without names; save `model.state_dict()` instead")
    return content


def _keys(state: dict[str, Tensor]) -> set[str]:
    return {tensor.storage.key for tensor in state.values()}


def _arrays(
    state: dict[str, Tensor], data: bytes, places: Mapping[str, slice]
) -> dict[str, np.ndarray]:
    """The tensors as views of `data`, in which their storages lie at `places`."""
    arrays = {}
    for name, (storage, offset, shape, stride) in state.items():
        dtype, place = STORAGES[storage.kind], places[storage.key]
        begin = place.start + offset * dtype.itemsize
        if place.start + storage.numel * dtype.itemsize > min(place.stop, len(data)):
            raise ValueError("a storage is larger than what the file holds of it")
        strides = [dtype.itemsize * step for step in stride]
        arrays[name] = np.ndarray(shape, dtype, data, begin, strides)
    return _bounded(arrays, len(data))


def _bounded(arrays: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """The arrays, unless views of the same numbers make them much larger than the file."""
    if sum(array.nbytes for array in arrays.values()) > 2 * size:
        raise Refused("repeats its numbers to more than twice its size; save contiguous tensors")
    return arrays


def _read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    length = int.from_bytes(data[:8], "little")
    if length > min(HEADER, len(data)):
        raise ValueError("its header is too long")
    begin, arrays = 8 + length, {}
    for name, entry in json.loads(data[8:begin]).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in SAFETENSORS:
            raise Refused(f"holds {name[:60]} as {entry['dtype'][:20]}; convert it to F32")
        dtype, shape, (start, stop) = (
            SAFETENSORS[entry["dtype"]],
            entry["shape"],
            entry["data_offsets"],
        )
        if len(shape) > 8 or not counts(start, stop, *shape):
            raise ValueError(f"{name[:60]} is not described as safetensors do")
        if start > stop or math.prod(shape) * dtype.itemsize != stop - start:
            raise ValueError(f"{name[:60]} has another size than its shape")
        arrays[name] = np.ndarray(shape, dtype, data, begin + start)
    return _bounded(arrays, len(data))
