"""Files replaced whole, and folders with one writer."""

import os
import resource
import signal
import subprocess
import sys

import pytest

from robustjax.writing import append, locked, remove_unfinished, replacing


def test_takes_the_place_of_the_old_file(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for text in (b"one", b"two"):
        with replacing(path) as file:
            file.write(text)
        assert path.read_bytes() == text
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_reader_sees_the_old_file_until_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    with replacing(tmp_path / "a") as file:
        file.write(b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


HOLDS = """
import sys, time
from robustjax import writing
with writing.{block} as file:
    print("held", flush=True)
    time.sleep(60)
"""


def holder(block):
    """A process inside of a block."""
    words = [sys.executable, "-c", HOLDS.format(block=block)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


def refused(folder):
    message = "a run of another process is writing to"
    with pytest.raises(ValueError, match=message), locked(folder, "a run"):
        pass


def test_a_folder_has_one_writer_and_a_dead_one_frees_it(tmp_path):
    process = holder(f"locked({str(tmp_path)!r}, 'a run')")
    try:
        refused(tmp_path)
    finally:
        kill(process)
    with locked(tmp_path, "a run"):
        refused(tmp_path)
    with locked(tmp_path, "a run"):
        pass


def test_what_a_killed_writer_left_is_removed_and_a_living_one_stays(tmp_path):
    path = tmp_path / "a[1].txt"
    living, dead = (holder(f"replacing({str(path)!r})") for _ in range(2))
    try:
        kill(dead)
        assert len(os.listdir(tmp_path)) == 2
        with replacing(path) as file:
            file.write(b"new")
        (left,) = set(os.listdir(tmp_path)) - {path.name}
        remove_unfinished(tmp_path)
        assert sorted(os.listdir(tmp_path)) == sorted([path.name, left])
    finally:
        kill(living)
    with locked(tmp_path, "a run"):
        pass
    assert sorted(os.listdir(tmp_path)) == [".lock", path.name]


@pytest.fixture
def no_room():
    """Files of this process are at most 100 bytes long."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_refuses_is_named(tmp_path, no_room):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match=rf"File too large: '{path}'"):
        append(path, "x" * 200)
    path.write_text("old")
    with pytest.raises(OSError, match=rf"File too large: '{path}'"), replacing(path) as file:
        file.write(b"x" * 200)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
