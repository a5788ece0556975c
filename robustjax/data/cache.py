"""A folder of arrays that are slow to compute; damaged files are recomputed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from robustjax.archives import read_arrays, write_arrays


def folder() -> Path:
    """The cache's folder: the environment variable ROBUSTJAX_CACHE, or ~/.cache/robustjax."""
    return Path(os.environ.get("ROBUSTJAX_CACHE") or Path.home() / ".cache" / "robustjax")


def cached(
    name: str, keys: Sequence[str], make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays cached under `name`; the first call computes them with `make`.

    Args:
      name: the file's name, without its suffix.
      keys: the arrays' names.
      make: computes all of them.

    Guarantees:
      A damaged file is replaced.
      If the cache cannot be written there is a warning, and the arrays are returned all the same.
    """
    path = folder() / f"{name}.npz"
    try:
        arrays = read_arrays(path)
        return {key: arrays[key] for key in keys}
    except OSError:
        pass  # missing or unreadable
    except (ValueError, KeyError) as error:
        warnings.warn(f"{path} is damaged ({error}); it is recomputed", stacklevel=2)
    arrays = make()
    try:
        write_arrays(path, {key: arrays[key] for key in keys})
    except OSError as error:
        warnings.warn(
            f"cannot cache to {path.parent} ({error.strerror}); set ROBUSTJAX_CACHE to a writable "
            "folder",
            stacklevel=2,
        )
    return arrays
