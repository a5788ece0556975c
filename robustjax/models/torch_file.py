"""PyTorch's weight files without PyTorch, and without running any code that they bring along.

A .pt file is a pickle of tensors whose numbers lie beside it: in a zip archive since PyTorch 1.6,
one after the other before. The unpickler here knows the names of tensors and dictionaries only; a
file that asks for any other is refused, as by `torch.load(weights_only=True)`. A .safetensors file
is a JSON header and the numbers.
"""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

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


class _Refused(ValueError):
    """The file is whole, but holds what a file of weights does not."""


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the tensors of a .pt, .pth or .safetensors file by name.

    Where a training script wrapped them ({'net': ..., 'epoch': 3}), the part called `state_dict`,
    `model_state_dict`, `net` or `model` is taken.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is torn, asks for code, or holds no tensors under names.

    Guarantees:
      No code named by the file runs: it builds arrays, numbers, strings and their containers only.
      The arrays are those of `torch.load(path, weights_only=True)`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file of weights at {path}")
    try:
        with open(path, "rb") as file:
            if Path(path).suffix == ".safetensors":
                return _read_safetensors(file)
            content = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
        return _tensors(content)
    except _Refused as error:
        raise ValueError(f"{path} {error}") from None
    except Exception as error:  # a torn pickle may raise anything
        raise ValueError(f"{path} is torn or is no file of PyTorch weights: {error!r}") from error


def _tensors(content: Any) -> dict[str, np.ndarray]:
    while isinstance(content, Mapping):
        if content and all(isinstance(value, np.ndarray) for value in content.values()):
            return dict(content)
        inside = next((key for key in WRAPPERS if key in content), None)
        if inside is None:
            keys = ", ".join(map(repr, list(content)[:10]))
            raise _Refused(f"has no state_dict among {keys}; load it yourself and pass the dict")
        content = content[inside]
    raise _Refused(f"holds a {type(content).__name__}; save `model.state_dict()` instead")


class _Unpickler(pickle.Unpickler):
    """Tensors and plain containers. `storage(kind, key, numel)` gives a tensor's numbers."""

    def __init__(self, file: BinaryIO, storage: Callable[[str, str, int], np.ndarray]):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return name
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
        }
        if (module, name) not in known:
            raise _Refused(
                f"asks for {module}.{name}, which only running its code could give; load it where "
                "you trust it and save `model.state_dict()`"
            )
        return known[module, name]

    def persistent_load(self, pid: tuple) -> np.ndarray:
        _, kind, key, _, numel, *view = pid
        storage = self._storage(kind, key, numel)
        if view and view[0] is not None:
            _, offset, size = view[0]
            storage = storage[offset : offset + size]
        return storage

    @staticmethod
    def _tensor(storage, offset, shape, stride, *rest) -> np.ndarray:
        reach = [(n - 1) * step for n, step in zip(shape, stride, strict=True)]
        if min([offset, *shape, *stride]) < 0:
            raise ValueError("a tensor has a negative shape")
        if 0 not in shape and offset + sum(reach) >= len(storage):
            raise ValueError("a tensor reaches beyond its numbers")
        strides = [storage.itemsize * step for step in stride]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)

    @staticmethod
    def _parameter(data, *rest) -> np.ndarray:
        return data


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = name.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            order = archive.read(f"{folder}byteorder")
            if order != b"little":
                raise _Refused(f"holds {order.decode()}-endian numbers")

        @functools.cache  # tensors may share one
        def storage(kind, key, numel):
            data = archive.read(f"{folder}data/{key}")
            return np.frombuffer(data, STORAGES[kind], numel)

        return _Unpickler(io.BytesIO(archive.read(name)), storage).load()


def _read_legacy(file: BinaryIO) -> Any:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    storages: dict[str, np.ndarray] = {}

    def storage(kind, key, numel):
        if key not in storages:
            if numel * STORAGES[kind].itemsize > size:
                raise ValueError("a tensor is larger than the file")
            storages[key] = np.zeros(numel, STORAGES[kind])
        return storages[key]

    def load():
        return _Unpickler(file, storage).load()

    if load() != MAGIC:
        raise ValueError("it does not begin as torch.save begins")
    _version, _system, content = load(), load(), load()
    for key in load():  # the numbers come after the tensors that view them
        if int.from_bytes(file.read(8), "little") != len(storages[key]):
            raise ValueError("a tensor's numbers are not as many as it says")
        storages[key][:] = np.frombuffer(file.read(storages[key].nbytes), storages[key].dtype)
    return content


def _read_safetensors(file: BinaryIO) -> dict[str, np.ndarray]:
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    data, arrays = file.read(), {}
    for name, entry in header.items():
        if name != "__metadata__":
            if entry["dtype"] not in SAFETENSORS:
                raise _Refused(f"holds {name} as {entry['dtype']}; convert it to F32")
            start, stop = entry["data_offsets"]
            array = np.frombuffer(data[start:stop], SAFETENSORS[entry["dtype"]])
            arrays[name] = array.reshape(entry["shape"])
    return arrays
