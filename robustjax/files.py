"""Files that are either the old ones or the new ones, never half of each."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends, and not if it raises.

    Guarantees:
      A reader sees the whole old file or the whole new one, whenever the writer dies.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes a private file; give it the permissions that open() would have.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How JSON, which has no such numbers (RFC 8259), holds them here: as strings, like Protobuf's."""


def to_json(data: Any, indent: int | None = None) -> str:
    """Strict JSON: NumPy and JAX scalars and arrays are numbers, NaN and infinities are strings.

    Raises:
      TypeError: something in `data` is neither of JSON nor an array.

    Guarantees:
      `from_json` gives the same numbers back, NaN and infinities too.
    """
    return json.dumps(_strict(data), indent=indent, allow_nan=False)


def from_json(text: str) -> Any:
    """What `to_json` wrote, or another writer who leaves NaN and Infinity bare.

    Raises:
      json.JSONDecodeError: it is no JSON.
    """
    return _numbers(json.loads(text))


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Write `data` as `to_json` does, indented, whole or not at all.

    Raises:
      TypeError: something in `data` is neither of JSON nor an array.
    """
    text = to_json(data, indent=2) + "\n"
    with replacing(path) as file:
        file.write(text.encode())


def write_arrays(
    path: str | os.PathLike, arrays: Mapping[str, Any], compress: bool = False
) -> None:
    """Write an .npz that holds `arrays` under their names, whole or not at all."""
    with replacing(path) as file:
        (np.savez_compressed if compress else np.savez)(file, **arrays)


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file.

    Raises:
      ValueError: it is torn; the message names it.
    """
    try:
        return from_json(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is torn: {error}; make it anew or put a copy back") from error


def check_keys(path: str | os.PathLike, content: Any, keys: Sequence[str]) -> None:
    """Raise ValueError unless `content`, which was read from `path`, is an object with `keys`."""
    found = content if isinstance(content, Mapping) else {}
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"{path} is not what robustjax writes: it has no {', '.join(missing)}")


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a torn last line (the writer was killed) is left out.

    Raises:
      ValueError: another line is not JSON.
    """
    lines = Path(path).read_text().splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(from_json(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}, is not JSON: {line[:60]!r}") from error
    return rows


def _strict(value: Any) -> Any:
    """The same with lists for arrays and the strings of `NOT_FINITE` for what is not finite."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if hasattr(value, "tolist"):
        return _strict(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)  # its name
    if not isinstance(value, str | int | float | None):
        raise TypeError(f"{type(value).__name__} has no place in JSON: {value!r}")
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value
