"""Files that are replaced whole or not at all, and strict JSON."""

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
    """Open a file that takes the place of `path` when the block ends, unless the block raises.

    Guarantees:
      A reader sees the whole old file or the whole new one, even if the writer dies.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes a private file; give it the permissions of open().
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""The strings that stand for these numbers, which JSON lacks (RFC 8259); Protobuf does the same."""


def to_json(data: Any, indent: int | None = None) -> str:
    """Strict JSON: NumPy and JAX scalars and arrays are numbers, NaN and infinities are strings.

    Raises:
      TypeError: a value in `data` is neither a JSON type nor an array.

    Guarantees:
      `from_json` restores the same numbers, including NaN and infinities.
    """
    return json.dumps(_strict(data), indent=indent, allow_nan=False)


def from_json(text: str) -> Any:
    """Parse what `to_json` wrote, or JSON with bare NaN and Infinity.

    Raises:
      json.JSONDecodeError: `text` is not JSON.
    """
    return _numbers(json.loads(text))


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Write `data` as indented strict JSON (`to_json`); the file is replaced whole or not at all.

    Raises:
      TypeError: a value in `data` is neither a JSON type nor an array.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "result.json")
    ...     rj.report.write_json(path, {"accuracy": np.float32(0.5), "loss": np.nan})
    ...     print(path.read_text())
    {
      "accuracy": 0.5,
      "loss": "NaN"
    }
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
      ValueError: the file is incomplete or damaged; the message names it.
    """
    try:
        return from_json(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}; recreate it or restore a copy") from error


def check_keys(path: str | os.PathLike, content: Any, keys: Sequence[str]) -> None:
    """Raise ValueError unless `content`, read from `path`, is an object with these keys."""
    found = content if isinstance(content, Mapping) else {}
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"{path} was not written by robustjax: it has no {', '.join(missing)}")


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; an incomplete last line (the writer was killed) is skipped.

    Raises:
      ValueError: another line is not JSON.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "metrics.jsonl")
    ...     _ = path.write_text('{"step": 10, "loss": 2.3}\\n{"step": 20, "lo')
    ...     rj.report.read_metrics(path)
    [{'step': 10, 'loss': 2.3}]
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
    """`value` with lists for arrays and the strings of `NOT_FINITE` for those numbers."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if hasattr(value, "tolist"):
        return _strict(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)  # NaN, Infinity or -Infinity
    if not isinstance(value, str | int | float | None):
        raise TypeError(f"JSON cannot hold a {type(value).__name__}: {value!r}")
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value
