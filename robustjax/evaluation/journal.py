"""Snapshots of a long evaluation: killed at any point, it resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from typing_extensions import override

from robustjax.archives import read_arrays
from robustjax.attacks._engine.ledger import Ledger
from robustjax.attacks._engine.slots import Snapshot, SnapshotStore
from robustjax.writing import replacing

INTERVAL = 30.0
"""Seconds between two snapshots; longer where one takes more than a twentieth of it to write."""


class Journal(Ledger):
    """A ledger whose stages leave snapshots in a folder.

    Every stage has its own file, replaced whole; a complete stage is read instead of run. The
    folder's name (`fingerprint`) depends on everything that decides a result, so the snapshots of
    another evaluation are never read.
    """

    def __init__(self, folder: str | os.PathLike, name: str):
        """Keep the stages of the attack `name` in `folder`."""
        super().__init__()
        self.folder, self.name = Path(folder), name

    @override
    def store(self, path: tuple[int, ...]) -> SnapshotStore:
        # A quoted name holds no comma and no slash, so no two stages share a file.
        stem = ",".join([quote(self.name, safe=""), *map(str, path)])
        return FileStore(self.folder / f"{stem}.npz")


class FileStore(SnapshotStore):
    """Snapshots in one .npz: the leaves of the tree in order.

    If the number of slots has changed, the examples in the slots start over. `load` raises a
    ValueError if the file is damaged or belongs to another stage. `save` writes if the last
    snapshot is old, or the stage is complete.
    """

    def __init__(self, path: Path):
        """Nothing is read or written yet."""
        self.path = path
        self._next = time.monotonic() + INTERVAL

    @override
    def load(self, template: Snapshot) -> Snapshot | None:
        if not self.path.exists():
            return None
        try:
            leaves = list(read_arrays(self.path).values())
            found = jax.tree.unflatten(jax.tree.structure(template), leaves)
        except ValueError as error:
            raise ValueError(f"{error}; delete it, and this stage starts over") from error
        if not _fits(found.crafted, template.crafted):
            raise ValueError(f"{self.path} belongs to another stage; delete it to start over")
        if not _fits(found.state, template.state):
            found = found._replace(slot=template.slot, state=template.state)
        return found

    @override
    def save(self, take: Callable[[], Snapshot], last: bool) -> None:
        begun = time.monotonic()
        if begun < self._next and not last:
            return
        with replacing(self.path) as file:
            np.savez(file, *jax.tree.leaves(take()))
        now = time.monotonic()
        self._next = now + max(INTERVAL, 20 * (now - begun))


def fingerprint(arrays: Any, about: Any, programs: Iterable[ClosedJaxpr]) -> str:
    """Sixteen hex digits that depend on everything that decides a result.

    JAX's version and the platform are included, since their kernels may round differently.

    Args:
      arrays: a pytree of arrays and keys.
      about: a JSON value.
      programs: what is computed; an edited function keeps its name but changes its program.
    """
    programs = list(programs)
    platform = jax.local_devices()[0].platform
    text = json.dumps([about, jax.__version__, platform], default=repr)
    text = "\n".join([text, *(str(program.jaxpr) for program in programs)])
    digest = hashlib.sha256(re.sub("0x[0-9a-f]+", "", text).encode())  # no address of an object
    for leaf in jax.tree.leaves((arrays, [program.consts for program in programs])):
        is_key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _fits(found: Any, template: Any) -> bool:
    """Whether two trees of one structure hold arrays of the same shapes and types."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(template), strict=True)
    return all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
