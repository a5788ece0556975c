"""PyTorch's weight files, read without PyTorch and without running code from the file.

A .pt file is a pickle of tensors whose numbers are stored separately: in a zip archive since
PyTorch 1.6, one after the other before. The unpickler here knows only tensors and dictionaries; a
file that needs anything else is refused, as by `torch.load(weights_only=True)`. A .safetensors file
is a JSON header followed by the numbers.
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
    """The file is intact but holds something other than weights."""


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
        raise FileNotFoundError(f"there is no weights file at {path}")
    try:
        with open(path, "rb") as file:
            if Path(path).suffix == ".safetensors":
                return _read_safetensors(file)
            content = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
        return _tensors(content)
    except _Refused as error:
        raise ValueError(f"{path} {error}") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{path} is damaged or not a PyTorch weights file: {error!r}") from error


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
                f"needs {module}.{name}, which would run code from the file; load it where you "
                "trust it and save `model.state_dict()`"
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
            raise ValueError("a tensor extends beyond its storage")
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

        @functools.cache  # tensors may share a storage
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
        raise ValueError("it does not begin like a file of torch.save")
    _version, _system, content = load(), load(), load()
    for key in load():  # the numbers come after the tensors that view them
        if int.from_bytes(file.read(8), "little") != len(storages[key]):
            raise ValueError("a storage has another size than declared")
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
