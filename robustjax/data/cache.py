"""A folder of decoded images; damaged files are decoded again."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from robustjax.archives import map_arrays, read_arrays, write_arrays
from robustjax.data.rows import on_disk
from robustjax.warn import warn
from robustjax.writing import replacing

Arrays = dict[str, np.ndarray]
Examples = Iterable[tuple[np.ndarray, int]]


def folder() -> Path:
    """The cache's folder: the environment variable ROBUSTJAX_CACHE, or ~/.cache/robustjax."""
    return Path(os.environ.get("ROBUSTJAX_CACHE") or Path.home() / ".cache" / "robustjax")


def decoded(
    name: str, shape: Callable[[], tuple[int, ...]], make: Callable[[], Examples]
) -> Arrays:
    """The images and labels cached under `name`; the first call decodes them.

    Images that take at most a quarter of the machine's memory are returned in memory. Larger ones
    are decoded to disk, a few at a time, and memory-mapped.

    Args:
      name: the file's name, without its suffix; it must change with the source.
      shape: says (N, H, W, C); called if the images must be decoded.
      make: decodes the N images, uint8 (H, W, C), each with its label.

    Returns:
      'images' (N, H, W, C) uint8 and 'labels' (N,) int32.

    Raises:
      OSError: the images are too large for memory and the cache cannot be written.

    Guarantees:
      The bits are the same in memory and on disk.
      A file is written whole or not at all. A damaged one is replaced; of images that stay on disk
      only the file's structure is checked.
      If the cache cannot be written there is a warning, and images that fit in memory are returned
      all the same.
    """
    path = folder() / f"{name}.npz"
    try:
        return _read(map_arrays if on_disk(path.stat().st_size) else read_arrays, path)
    except OSError:
        pass  # missing or unreadable
    except (ValueError, KeyError) as error:
        warn(f"{path} is damaged ({error}); it is decoded again")
    size = shape()
    where = f"{path.parent}; set ROBUSTJAX_CACHE to a writable folder"
    if on_disk(math.prod(size)):
        try:
            _stream(path, size, make())
        except OSError as error:
            need = (
                f"with {math.prod(size) / 1e9:.1f} GB free: these images are too large for memory"
            )
            raise OSError(f"cannot decode to {where} {need} ({error.strerror or error})") from error
        return _read(map_arrays, path)
    images, labels = np.empty(size, np.uint8), np.empty(size[0], np.int32)
    for row, (image, label) in enumerate(make()):
        images[row], labels[row] = image, label
    arrays = {"images": images, "labels": labels}
    try:
        write_arrays(path, arrays)
    except OSError as error:
        warn(f"cannot cache to {where} ({error.strerror})")
    return arrays


def _read(read: Callable[[Path], Arrays], path: Path) -> Arrays:
    found = read(path)
    return {"images": found["images"], "labels": np.array(found["labels"])}


def _stream(path: Path, size: tuple[int, ...], examples: Examples) -> None:
    """Write what `write_arrays` would, image by image."""
    labels = []
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": size}
            np.lib.format.write_array_header_1_0(member, header)
            for image, label in examples:
                member.write(image.tobytes())
                labels.append(label)
        with archive.open("labels.npy", "w") as member:
            np.lib.format.write_array(member, np.array(labels, np.int32))
