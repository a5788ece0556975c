"""Files that are replaced whole or not at all, and folders with one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: folders are not locked, and a killed writer's files stay
    fcntl = None


@contextlib.contextmanager
def locked(folder: str | os.PathLike, owner: str) -> Iterator[None]:
    """Be the only writer of a folder until the block ends.

    Args:
      folder: made if it is missing.
      owner: what writes there, for the message that another one gets, e.g. 'a run'.

    Raises:
      ValueError: another process writes there now, or another thread.

    Guarantees:
      The lock of a process that died is free.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as file:
        if not _lock(file.fileno()):
            raise ValueError(
                f"{owner} of another process is writing to {folder}; wait until it ends, stop it, "
                "or choose another folder"
            )
        remove_unfinished(folder)
        yield


def _lock(handle: int) -> bool:
    """Lock an open file if nobody has; the lock goes when the file is closed."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what killed writers of `name` left there: `replacing` locks what is being written."""
    for path in folder.glob(f".{name}.*.tmp") if fcntl else ():
        with contextlib.suppress(OSError), path.open("rb") as file:
            if _lock(file.fileno()):
                path.unlink()


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends, unless the block raises.

    Guarantees:
      A reader sees the whole old file or the whole new one, even if the writer dies.
      What a killed writer left is removed by the next one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path.parent, glob.escape(path.name))
    handle, temporary = _temporary(path)
    try:
        with _naming(path), os.fdopen(handle, "wb") as file:
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


def append(path: str | os.PathLike, text: str) -> None:
    """Add `text` to the end of a file."""
    with _naming(Path(path)), open(path, "a") as file:
        file.write(text)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in the errors that do not, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_writable(path: str | os.PathLike) -> None:
    """Raise OSError unless a file can be put at `path`; nothing is left there.

    >>> check_writable("/dev/null/report.json")
    Traceback (most recent call last):
    OSError: cannot write /dev/null/report.json: its folder is a file
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _temporary(path)
        os.close(handle)
        os.unlink(temporary)
    except OSError as error:
        exists = isinstance(error, FileExistsError)
        reason = "its folder is a file" if exists else error.strerror
        raise OSError(f"cannot write {path}: {reason}") from error


def _temporary(path: Path) -> tuple[int, str]:
    """A new file beside `path`, open and locked."""
    while True:
        handle, name = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
        if _lock(handle) and os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # another writer took it for a dead one's before it was locked
