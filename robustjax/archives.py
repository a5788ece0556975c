"""Arrays from files that nobody vouches for: .npy, .npz, and the zip archives of PyTorch.

Nothing is decompressed, no object but an array is built, and no size is believed before the file
turns out to have it: a hostile file costs no more time and memory than an honest one of its length.
"""

from __future__ import annotations

import contextlib
import io
import math
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robustjax.writing import replacing

MOST = 1 << 16
"""Members in one archive."""

_HEADER = 1 << 14
"""Bytes of a .npy file that may belong to its header; NumPy writes 128."""

_SHORT, _LONG = 0xFFFF, 0xFFFFFFFF
"""Stand for numbers of a zip archive that need more bits, and lie elsewhere."""


def write_arrays(
    path: str | os.PathLike, arrays: Mapping[str, Any], compress: bool = False
) -> None:
    """Write an .npz that holds `arrays` under their names, whole or not at all."""
    with replacing(path) as file:
        (np.savez_compressed if compress else np.savez)(file, **arrays)


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an uncompressed .npz, by name.

    Raises:
      OSError: the file cannot be opened.
      ValueError: the file is damaged or is not what `np.savez` writes.

    Guarantees:
      Any change of a byte that belongs to an array is an error.
    """
    with naming(path):
        data = mapped(path)
        return {
            _array_name(name): np.array(_view(data, where))
            for name, where in members(data, check=True).items()
        }


def map_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """As `read_arrays`, but the arrays stay on disk, and their checksums are not compared."""
    with naming(path):
        data = mapped(path)
        return {
            _array_name(name): _memmap(path, data, where)
            for name, where in members(data, check=False).items()
        }


def map_array(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of a .npy file, which stays on disk.

    Raises:
      OSError: the file cannot be opened.
      ValueError: the file is damaged or not what `np.save` writes.
    """
    with naming(path):
        data = mapped(path)
        return _memmap(path, data, slice(0, len(data)))


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever a damaged file raises into a ValueError that names it."""
    try:
        yield
    except (OSError, MemoryError):  # the file is not to blame
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} is damaged, or of another format: {reason}") from error


def mapped(path: str | os.PathLike[str]) -> mmap.mmap:
    """The bytes of a file, which stay on disk."""
    if not Path(path).is_file():  # a pipe would wait for its writer
        raise FileNotFoundError(f"there is no file {path}")
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def members(data: bytes | mmap.mmap, *, check: bool) -> dict[str, slice]:
    """Where the members of a zip archive lie, by name.

    Args:
      data: the whole archive.
      check: compare the checksums, which reads everything.

    Raises:
      ValueError: `data` is no whole archive; a member is compressed or encrypted; members share
        their bytes or their name; a checksum differs.
    """
    found: dict[str, slice] = {}
    for name, checksum, place in _directory(data):
        if name in found:
            raise ValueError(f"two members are called {name[:100]!r}")
        if check and zlib.crc32(memoryview(data)[place]) != checksum:
            raise ValueError(f"the checksum of {name[:100]!r} differs")
        found[name] = place
    return found


def _directory(data: bytes | mmap.mmap) -> Iterator[tuple[str, int, slice]]:
    """Name, checksum and place of each member, as the end of the archive lists them."""
    end = data.rfind(b"PK\5\6", max(0, len(data) - (1 << 16) - 22))
    if end < 0:
        raise ValueError("it does not end like a zip archive")
    count, size, at, comment = struct.unpack_from("<H2LH", data, end + 10)
    if end + 22 + comment != len(data):
        raise ValueError("bytes follow the archive")
    if count == _SHORT or _LONG in (size, at):
        (at,) = struct.unpack_from("<Q", data, end - 12)
        count, _, at = struct.unpack_from("<3Q", data, at + 32)
    if count > MOST:
        raise ValueError(f"it has more than {MOST} members")
    left = len(data)
    for _ in range(count):
        sign, flags, method, checksum, packed, size, *lengths, start = struct.unpack_from(
            "<4s4x2H4x3L3H8xL", data, at
        )
        begin, middle, last = (at + 46 + sum(lengths[:i]) for i in range(3))
        at = last + lengths[2]
        name = data[begin:middle].decode()
        if sign != b"PK\1\2" or flags & 1 or method:
            raise ValueError("it is compressed; write it with np.savez or torch.save")
        size, packed, start = _long_sizes(data[middle:last], [size, packed, start])
        left -= size
        if packed != size or left < 0:
            raise ValueError("its members are larger than the file")
        if data[start : start + 4] != b"PK\3\4":
            raise ValueError(f"{name[:100]!r} is not where it should be")
        start += 30 + sum(struct.unpack_from("<2H", data, start + 26))
        if start + size > end:
            raise ValueError(f"{name[:100]!r} is incomplete")
        yield name, checksum, slice(start, start + size)
    if data[at : at + 4] not in (b"PK\5\6", b"PK\6\6"):
        raise ValueError("its list of members does not end where it should")


def _long_sizes(extra: bytes, sizes: list[int]) -> list[int]:
    """The sizes of a member, those that take more than 32 bits from its extra fields."""
    at = 0
    while _LONG in sizes:
        kind, length = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == 1:
            longer = iter(struct.unpack_from(f"<{sizes.count(_LONG)}Q", extra, at))
            return [next(longer) if size == _LONG else size for size in sizes]
        at += length
    return sizes


def _array_name(member: str) -> str:
    name = member.removesuffix(".npy")
    if name == member:
        raise ValueError(f"it holds {member[:100]!r}, which is no array")
    return name


def _view(data: bytes | mmap.mmap, place: slice) -> np.ndarray:
    """The array of a .npy file that lies there, as a view."""
    dtype, shape, order, offset = _header(data, place)
    return np.ndarray(shape, dtype, data, offset, order=order)


def _memmap(path: str | os.PathLike[str], data: mmap.mmap, place: slice) -> np.ndarray:
    dtype, shape, order, offset = _header(data, place)
    return np.memmap(path, dtype, "r", offset, shape, order)


def _header(
    data: bytes | mmap.mmap, place: slice
) -> tuple[np.dtype, tuple[int, ...], Literal["F", "C"], int]:
    """Type, shape, order of the axes and place of the numbers of a .npy file."""
    file = io.BytesIO(data[place.start : min(place.start + _HEADER, place.stop)])
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format {version} is unknown")
    one, two = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    shape, fortran, dtype = (one if version == (1, 0) else two)(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if dtype.names or dtype.subdtype:
        raise ValueError("it holds records")
    begin = place.start + file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != place.stop - begin:
        raise ValueError(f"an array of shape {shape} has another number of bytes")
    return dtype, shape, "F" if fortran else "C", begin
