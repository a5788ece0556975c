"""Weights on disk: one flat .npz that NumPy alone reads, written in one piece or not at all."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util


def save_weights(path: str | os.PathLike[str], variables: Any) -> None:
    """Write `variables` as arrays named 'params/body/.../kernel', replacing `path` at once.

    Guarantees:
      A reader sees the old file or the new one, never a part.
    """
    path = Path(path)
    flat = traverse_util.flatten_dict(jax.device_get(variables), sep="/")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **flat)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp lets only the owner read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save_weights` wrote: {'params': ..., 'batch_stats': ...} of NumPy arrays.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is torn or is no .npz.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there are no weights at {path}; has the run been trained?")
    try:
        with np.load(path, allow_pickle=False) as file:
            flat = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is torn or is no .npz file; delete it and export the weights again"
        ) from error
    return traverse_util.unflatten_dict(flat, sep="/")
