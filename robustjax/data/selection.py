"""The end of a data set's name, which chooses some of its examples."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

END = re.compile(r"(.+?):(classes|train|test)=([^:]*)")
RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")


def chosen(name: str) -> tuple[str, dict[str, str]]:
    """A name without its end, and what the end says.

    Raises:
      ValueError: it says one thing twice.

    >>> chosen("folder:photos:size=64:train=0-999:classes=cat,dog")
    ('folder:photos:size=64', {'classes': 'cat,dog', 'train': '0-999'})
    """
    found: dict[str, str] = {}
    while match := END.fullmatch(name):
        name, what, text = match.groups()
        if what in found:
            raise ValueError(f"{name} is followed by :{what}= twice")
        found[what] = text
    return name, found


def rows(text: str, size: int, what: str) -> np.ndarray:
    """The rows that a text names, in its order.

    Args:
      text: ranges such as '0-999,2000', both ends included; or a file with whole numbers, .npy or
        text.
      size: the number of rows that there are.
      what: the name of the set, for errors.

    Returns:
      int64, all different.

    Raises:
      ValueError: not whole numbers, out of range, or one of them twice.
      FileNotFoundError: the text is not ranges, and there is no such file.

    >>> rows("0-2,7", size=10, what="blank").tolist()
    [0, 1, 2, 7]
    """
    parts = [RANGE.fullmatch(part) for part in text.split(",")]
    if all(parts):
        ends = [(int(m[1]), int(m[2] or m[1])) for m in parts if m]
        if any(last < first or last >= size for first, last in ends):
            raise ValueError(f"{what}: {text} must be ascending rows below {size}")
        found = np.concatenate([np.arange(first, last + 1) for first, last in ends])
    else:
        found = _listed(Path(text).expanduser(), what)
    if not len(found) or found.min() < 0 or found.max() >= size:
        raise ValueError(f"{what}: {text} must hold rows in [0, {size}), and at least one")
    if len(np.unique(found)) < len(found):
        raise ValueError(f"{what}: {text} names a row twice")
    return found


def _listed(path: Path, what: str) -> np.ndarray:
    """The numbers in a file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{what}: {path} is neither rows such as 0-999,2000 nor a file that lists them"
        )
    try:
        found = np.load(path) if path.suffix == ".npy" else np.loadtxt(path, np.int64, ndmin=1)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} must hold whole numbers: {error}") from error
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError(
            f"{path} must hold a list of whole numbers, got {found.dtype} of shape {found.shape}"
        )
    return found.astype(np.int64)
