"""JSON in files: strict, checked when it is read, and named in every error."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jax.core import Tracer

from robustjax.checks import checked, shown
from robustjax.writing import replacing

LARGEST = 1 << 26
"""Bytes of a JSON file that is read at all."""


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


@checked
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


@checked
def digest(data: Any) -> str:
    """The SHA-256 of a JSON value, as 64 hex digits; the order of an object's keys is the same.

    >>> rj.files.digest({"a": 1, "b": 2}) == rj.files.digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(_strict(data), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@checked
def read_json(path: str | os.PathLike, keys: dict[str, Any] | None = None) -> Any:
    """Read a JSON file.

    Args:
      path: the file.
      keys: what it must hold, as `check_content` reads it.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is incomplete, damaged or not what it should be; the message names it.
    """
    if not Path(path).is_file():  # a pipe would wait for its writer
        raise FileNotFoundError(f"there is no file {path}")
    if Path(path).stat().st_size > LARGEST:
        raise ValueError(f"{path} is larger than any JSON file of robustjax; restore a copy")
    try:
        content = from_json(Path(path).read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}; recreate it or restore a copy") from error
    if keys is not None:
        check_content(path, content, keys)
    return content


def check_content(path: str | os.PathLike, content: Any, wanted: dict[str, Any]) -> None:
    """Raise ValueError unless `content`, read from `path`, is an object with these entries.

    Args:
      path: where it was read, for the message.
      content: any JSON value.
      wanted: name -> the entry's type, or several; [type] is a list of such entries, {name: type}
        an object with these. Truth values are no numbers, and whole numbers are.

    >>> check_content("config.json", {"data": {"name": 3}}, {"data": {"name": str}})
    Traceback (most recent call last):
    ValueError: config.json was not written by robustjax: its data.name is 3, not text; restore...
    """
    found = content if isinstance(content, Mapping) else {}
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(f"{path} was not written by robustjax: it has no {', '.join(missing)}")
    for place, value, kind in _faults("", content, wanted):
        raise ValueError(
            f"{path} was not written by robustjax: its {place} is {_short(value)}, not {kind}; "
            "restore a copy"
        )


KINDS = {
    Mapping: "an object",
    list: "a list",
    str: "text",
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    type(None): "null",
}
"""What the types of JSON are called in messages."""


def _faults(place: str, value: Any, kind: Any) -> Iterator[tuple[str, Any, str]]:
    """The entries of another type than wanted: place, value and the type's name."""
    if isinstance(kind, list | dict):
        kinds = (Mapping if isinstance(kind, dict) else list,)
    else:
        kinds = kind if isinstance(kind, tuple) else (kind,)
    if not _is_of(value, kinds):
        yield place, value, " or ".join(KINDS[k] for k in kinds)
    elif isinstance(kind, dict):
        for name, wanted in kind.items():
            yield from _faults(f"{place}.{name}".lstrip("."), value.get(name), wanted)
    elif isinstance(kind, list):
        for number, entry in enumerate(value):
            yield from _faults(f"{place}[{number}]", entry, kind[0])


def _is_of(value: Any, kinds: tuple[Any, ...]) -> bool:
    """Whether a value is of one of these types; a whole number is a number, true is not."""
    found = isinstance(value, (*kinds, int) if float in kinds else kinds)
    return found and (bool in kinds or not isinstance(value, bool))


def _short(value: Any) -> str:
    text = "missing" if value is None else to_json(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


@checked
def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; an incomplete last line (the writer was killed) is skipped.

    Raises:
      OSError: the file cannot be read.
      ValueError: another line is not a JSON object with the number of its step.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "metrics.jsonl")
    ...     _ = path.write_text('{"step": 10, "loss": 2.3}\\n{"step": 20, "lo')
    ...     rj.report.read_metrics(path)
    [{'step': 10, 'loss': 2.3}]
    """
    rows, bad = scan_metrics(path)
    if bad:
        raise ValueError(
            f"{path}, line {bad[0]}, is not a row of metrics; delete the line, or resume the run, "
            "which does"
        )
    return rows


def scan_metrics(path: str | os.PathLike) -> tuple[list[dict[str, Any]], list[int]]:
    """As `read_metrics`, but beside the rows the numbers of the lines that are none."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    lines = Path(path).read_bytes().splitlines()
    rows, bad = [], []
    for number, line in enumerate(lines, 1):
        try:
            row = from_json(line.decode())
            check_content(path, row, {"step": int})
            check_content(path, row, {name: str if name == "split" else float for name in row})
            rows.append(row)
        except (ValueError, TypeError, RecursionError):
            if number < len(lines):
                bad.append(number)
    return rows, bad


def _strict(value: Any) -> Any:
    """`value` with lists for arrays and the strings of `NOT_FINITE` for those numbers."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if hasattr(value, "tolist") and not isinstance(value, Tracer):
        return _strict(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)  # NaN, Infinity or -Infinity
    if not isinstance(value, str | int | float | None):
        raise TypeError(f"data must be JSON, which cannot hold {shown(value)}")
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value
