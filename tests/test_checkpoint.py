import os
import resource
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustjax.checkpoint import Checkpoints, ForeignCheckpoint, refuse_foreign, uninterrupted

STATE = {"w": jnp.arange(1000.0), "none": (), "inner": {"step": jnp.int32(3)}}
IDENTITY = {"method": "TRADES"}


@pytest.fixture
def two(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, STATE, IDENTITY | {"best": 0.1})
    checkpoints.save(2, jax.tree.map(lambda a: a + 1, STATE), IDENTITY | {"best": 0.2})
    return checkpoints


def test_the_newest_comes_back(two):
    state, meta = Checkpoints(two.folder).restore(STATE, IDENTITY)
    assert state["inner"]["step"] == 4 and meta["best"] == 0.2
    assert (state["w"] == STATE["w"] + 1).all() and state["none"] == ()


def test_nothing_is_none(tmp_path):
    assert Checkpoints(tmp_path / "empty").restore(STATE, IDENTITY) is None


def tear(folder):
    for file in folder.rglob("*"):
        if file.is_file() and "d" in file.parts:
            file.write_bytes(b"")


def test_a_torn_one_is_skipped_and_can_be_written_again(two):
    tear(two.folder / "2")
    again = Checkpoints(two.folder)
    with pytest.warns(UserWarning, match="is damaged"):
        state, _ = again.restore(STATE, IDENTITY)
    assert state["inner"]["step"] == 3
    again.save(2, STATE, IDENTITY)
    assert again.restore(STATE, IDENTITY)[0]["inner"]["step"] == 3


def test_an_unfinished_one_is_removed(two):
    unfinished = two.folder / "3.orbax-checkpoint-tmp-0"
    unfinished.mkdir()
    assert Checkpoints(two.folder).restore(STATE, IDENTITY)[0]["inner"]["step"] == 4
    assert not unfinished.exists()


@pytest.mark.filterwarnings("ignore:checkpoint")
def test_no_changed_bit_is_restored(tmp_path):
    """Each is seen, or belongs to neither the state nor what is said of it."""
    folder, rng, seen = tmp_path / "c", np.random.default_rng(0), 0
    Checkpoints(folder).save(1, STATE, IDENTITY | {"best": 0.25, "history": [0.125, 0.25]})
    written = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size]
    for _ in range(60):
        path = written[rng.integers(len(written))]
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            state, meta = Checkpoints(folder).restore(STATE, IDENTITY)
            assert jax.tree.all(jax.tree.map(np.array_equal, state, STATE))
            assert meta == IDENTITY | {"best": 0.25, "history": [0.125, 0.25]}
        except ValueError:
            seen += 1
        path.write_bytes(whole)
    assert seen > 5


def test_a_checkpoint_of_a_version_without_digests_is_restored(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c")
    with monkeypatch.context() as context:
        context.setattr("robustjax.checkpoint.digest", lambda state, meta: "")
        checkpoints.save(1, STATE, IDENTITY)
    assert checkpoints.restore(STATE, IDENTITY)[1] == IDENTITY


def test_all_torn_is_an_error(two):
    tear(two.folder)
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match=r"no checkpoint in .* can be read"),
    ):
        Checkpoints(two.folder).restore(STATE, IDENTITY)


def test_a_foreign_one_is_refused(two):
    with pytest.raises(ForeignCheckpoint, match="its method is 'TRADES', not 'SAT'"):
        two.restore(STATE, {"method": "SAT"})


def test_a_foreign_one_is_told_by_its_leaf():
    theirs, ours = ({"type": "R", "fields": {"lr": lr, "epochs": 3}} for lr in (0.1, 0.5))
    with pytest.raises(ForeignCheckpoint, match=r"its recipe\.lr is 0\.1, not 0\.5"):
        refuse_foreign("run", {"recipe": theirs}, {"recipe": ours})


def test_a_disk_that_refuses_is_one_line_and_those_before_are_kept(tmp_path, capfd):
    checkpoints, before = Checkpoints(tmp_path / "c"), resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints.save(1, STATE, IDENTITY)
    message = r"c/2 could not be written \(File too large\); those before it are kept"
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, before[1]))
    try:
        with pytest.raises(OSError, match=message):
            checkpoints.save(2, {"w": jax.random.normal(jax.random.key(0), (10_000,))}, IDENTITY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["1"]
    assert checkpoints.restore(STATE, IDENTITY)[1] == IDENTITY
    assert capfd.readouterr().err == ""


def test_ctrl_c_waits_for_a_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        checkpoints.save(1, STATE, IDENTITY)
    assert checkpoints.restore(STATE, IDENTITY)[1] == IDENTITY
