"""Snapshots of a long evaluation: killed at any point, it resumes where it stopped."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr
from typing_extensions import override

from robustjax.archives import read_arrays
from robustjax.attacks._engine.ledger import Ledger
from robustjax.attacks._engine.slots import Snapshot, SnapshotStore
from robustjax.checks import checked
from robustjax.evaluation.setting import digest
from robustjax.writing import replacing

INTERVAL = 30.0
"""Seconds between two snapshots; longer where one takes more than a twentieth of it to write."""


class Journal:
    """A folder of snapshots, in which each attack in its setting has a subfolder of its own.

    A subfolder's name (`fingerprint`) depends on everything that decides the attack's result and on
    nothing else: the snapshots of another evaluation are never read, and an attack is found again
    whatever it is called and whichever attacks stand beside it.

    >>> import tempfile
    >>> images, labels = np.float32([0.75, 0.5]).reshape(1, 1, 1, 2), [0]
    >>> def model(images):  # two pixels, two logits
    ...     return images[:, 0, 0]
    >>> attacks, key = {"fgsm": rj.attacks.FGSM(rj.threats.Linf(0.3))}, jax.random.key(0)
    >>> journal = rj.evaluation.Journal(tempfile.mkdtemp())
    >>> how = {"journal": journal, "diagnose": False}
    >>> found = rj.evaluation.evaluate(model, images, labels, attacks, key, **how)
    >>> journal.clear()  # the report is safe
    """

    @checked
    def __init__(self, folder: str | os.PathLike):
        """Nothing is read or written yet."""
        self.folder, self._asked = Path(folder), set()

    def ledger(self, fingerprint: str) -> Ledger:
        """The ledger of one attack in its setting."""
        self._asked.add(self.folder / fingerprint)
        return FileLedger(self.folder / fingerprint)

    def clear(self) -> None:
        """Remove the snapshots of every attack whose ledger was asked for; all others stay.

        Of several processes the first does it, for all.
        """
        if jax.process_index() > 0:
            return
        for folder in self._asked:
            shutil.rmtree(folder, ignore_errors=True)  # missing if nothing was attacked
        with contextlib.suppress(OSError):  # others are there, or there is no folder
            self.folder.rmdir()


class FileLedger(Ledger):
    """A ledger whose stages leave snapshots in a folder.

    Every stage has its own file, replaced whole, and of several processes each has its own; a
    complete stage is read instead of run.
    """

    def __init__(self, folder: Path):
        """Nothing is read or written yet."""
        super().__init__()
        self.folder = folder

    @override
    def store(self, path: tuple[int, ...]) -> SnapshotStore:
        name = ",".join(map(str, ("stage", *path)))
        if jax.process_count() > 1:
            name += f".{jax.process_index()}-of-{jax.process_count()}"
        return FileStore(self.folder / f"{name}.npz")


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
    def load(self, template: Callable[[], Snapshot]) -> Snapshot | None:
        if not self.path.exists():
            return None
        empty = template()
        try:
            leaves = list(read_arrays(self.path).values())
            found = jax.tree.unflatten(jax.tree.structure(empty), leaves)
        except ValueError as error:
            raise ValueError(f"{error}; delete it, and this stage starts over") from error
        if not _fits(found.crafted, empty.crafted):
            raise ValueError(f"{self.path} belongs to another stage; delete it to start over")
        if not _fits(found.state, empty.state):
            found = found._replace(slot=template.slot, state=empty.state)
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
    text = re.sub("0x[0-9a-f]+", "", text)  # no address of an object
    return digest([text], arrays, [program.consts for program in programs])[:16]


def _fits(found: Any, template: Any) -> bool:
    """Whether two trees of one structure hold arrays of the same shapes and types."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(template), strict=True)
    return all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
