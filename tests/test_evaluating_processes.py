"""Several processes on one machine share an evaluation, and return what one returns."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from evaluating_processes import found
from jax.experimental import multihost_utils

from robustjax import parallel
from robustjax.attacks import PGD, Randomized
from robustjax.evaluation import evaluate, run
from robustjax.losses import cross_entropy, margin

SCRIPT = Path(__file__).with_name("evaluating_processes.py")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return found(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One device a process, and programs that are compiled once for all of them."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("programs")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return os.environ | cache | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}


def begin(folder, count, environment, **saves):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    words = [sys.executable, str(SCRIPT), str(folder), address, str(count)]
    return [
        subprocess.Popen([*words, str(i), *saves.get(f"of_{i}", [])], env=environment)
        for i in range(count)
    ]


def check_all(folder, processes, alone):
    for i, process in enumerate(processes):
        assert process.wait(timeout=300) == 0
        with np.load(folder / f"{i}.npz") as results:
            assert set(results) == set(alone)
            for name, want in alone.items():
                np.testing.assert_array_equal(results[name], want, err_msg=name)


def test_two_processes_return_the_bits_of_one_though_one_was_killed(tmp_path, environment, alone):
    """Stages that were saved are read; all others, the curve and the images are computed."""
    processes = begin(tmp_path, 2, environment, of_1=["2"])
    assert processes[1].wait(timeout=300) == -signal.SIGKILL
    processes[0].kill()
    processes[0].wait()
    saved = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.1-of-2.npz")}
    assert len(saved) == 2  # two stages, complete
    check_all(tmp_path, begin(tmp_path, 2, environment), alone)
    assert {path: path.stat().st_mtime_ns for path in saved} == saved


def as_one_of(monkeypatch, process, processes, gathered=None):
    monkeypatch.setattr(jax, "process_index", lambda: process)
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda tree: gathered(tree))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_shares_are_of_one_size_and_join_to_the_whole(monkeypatch, count):
    whole, shares = {"x": np.arange(2 * count).reshape(count, 2)}, []
    for process in range(3):
        as_one_of(monkeypatch, process, 3)
        shares.append(parallel.share(whole)["x"])
    as_one_of(monkeypatch, 0, 3, lambda _: {"x": np.stack(shares)})
    np.testing.assert_array_equal(parallel.join({"x": shares[0]}, count)["x"], whole["x"])
    assert max(map(len, shares)) == -(-count // 3)


def test_processes_with_different_images_are_told_so(monkeypatch):
    ours = {"images": np.zeros(3), "labels": np.ones(3), "keys": jax.random.key(0)}
    theirs = np.int32([0, 1, 0])  # what their digests are more than ours
    as_one_of(monkeypatch, 0, 2, lambda mine: np.stack([mine, mine + theirs]))
    with pytest.raises(ValueError, match="were given different labels: give all of them the same"):
        parallel.check_same(ours)
    as_one_of(monkeypatch, 0, 2, lambda mine: np.stack([mine, mine]))
    parallel.check_same(ours)


def test_processes_with_other_functions_or_draws_are_told_so(monkeypatch):
    """These are no arrays, yet shares by different ones would be no evaluation."""
    model = Randomized(lambda key, x: x.reshape(len(x), -1))
    subject = model, np.zeros((2, 1, 2, 1), np.float32), np.zeros(2, int)

    def agreed(loss=cross_entropy, **options):
        digests = []

        def gathered(mine):
            digests.append(mine)
            return np.stack([mine, mine])

        with monkeypatch.context() as patched, contextlib.suppress(StopIteration):
            as_one_of(patched, 0, 2, gathered)
            patched.setattr(run, "measure", lambda *_: next(iter(())))  # nothing is attacked
            evaluate(*subject, {"pgd": PGD(loss=loss)}, jax.random.key(0), **options)
        return np.concatenate(digests).tolist()

    same = agreed()
    assert agreed() == same
    surrogate, success = subject[0], lambda output, label: label > 0
    others = {"draws": 3}, {"vote": True}, {"diagnose": False}, {"success": success}
    for options in ({"loss": margin}, {"surrogate": surrogate}, *others):
        assert agreed(**options) != same
