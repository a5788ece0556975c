import gc

import jax
import jax.numpy as jnp
import pytest

from robustjax.checkpoint import Checkpoints, ForeignCheckpoint, refuse_foreign

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


# When one read of many fails, Orbax closes its event loop under the others, and they complain.
abandoned = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def collected():
    yield
    gc.collect()


def tear(folder):
    for file in folder.rglob("*"):
        if file.is_file() and "d" in file.parts:
            file.write_bytes(b"")


@abandoned
def test_a_torn_one_is_skipped_and_can_be_written_again(two, collected):
    tear(two.folder / "2")
    again = Checkpoints(two.folder)
    with pytest.warns(UserWarning, match="cannot be read"):
        state, _ = again.restore(STATE, IDENTITY)
    assert state["inner"]["step"] == 3
    again.save(2, STATE, IDENTITY)
    assert again.restore(STATE, IDENTITY)[0]["inner"]["step"] == 3


def test_an_unfinished_one_is_ignored(two):
    (two.folder / "3.orbax-checkpoint-tmp-0").mkdir()
    assert Checkpoints(two.folder).restore(STATE, IDENTITY)[0]["inner"]["step"] == 4


@abandoned
def test_all_torn_is_an_error(two, collected):
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
