"""Arrays that are slow to make, kept in a folder; a damaged file is made again."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from robustjax.files import write_arrays


def folder() -> Path:
    """The environment variable ROBUSTJAX_CACHE, or ~/.cache/robustjax."""
    return Path(os.environ.get("ROBUSTJAX_CACHE") or Path.home() / ".cache" / "robustjax")


def cached(
    name: str, keys: Sequence[str], make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays filed under `name`, from `make` the first time.

    Args:
      name: the file's name, without its suffix.
      keys: the arrays' names.
      make: makes all of them.

    Guarantees:
      A torn or damaged file is made again.
      A cache that cannot be written costs a warning, not the run.
    """
    path = folder() / f"{name}.npz"
    try:
        # The zip's checksums cover the arrays, so what is read is what was written.
        with path.open("rb") as file, np.load(file) as arrays:
            return {key: arrays[key] for key in keys}
    except OSError:
        pass  # not there, or not to be read
    except Exception as error:  # whatever is wrong with a cache, it can be made again
        warnings.warn(f"{path} is damaged ({error}); making it again", stacklevel=2)
    arrays = make()
    try:
        write_arrays(path, {key: arrays[key] for key in keys})
    except OSError as error:
        warnings.warn(
            f"cannot cache to {path.parent} ({error.strerror}); set ROBUSTJAX_CACHE to a folder "
            "that can be written",
            stacklevel=2,
        )
    return arrays
