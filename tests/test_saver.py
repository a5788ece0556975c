"""Jobs in order, the newest instead of one that waits, and no error lost."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest

from robustjax import parallel
from robustjax.training.saver import Saver, snapshot


def fill(saver, jobs):
    """Put jobs (name, optional) while the first one runs; the names of those that were done."""
    done, go = [], threading.Event()
    saver.put(go.wait)
    threading.Timer(0.05, go.set).start()
    for name, optional in jobs:
        saver.put(lambda name=name: done.append(name), optional)
    saver.wait()
    return "".join(done)


@pytest.mark.parametrize(
    ("jobs", "done"),
    [("abc", "c"), ("aBc", "B"), ("ABC", "C"), ("Ab", "A")],
)
def test_a_job_that_waits_gives_way_but_not_to_an_optional_one(jobs, done):
    with Saver() as saver:
        assert fill(saver, [(name, name.islower()) for name in jobs]) == done


def test_optional_jobs_leave_the_thread_idle_until_somebody_waits():
    done = []
    with Saver() as saver:
        saver.put(lambda: time.sleep(0.5))
        time.sleep(0.6)
        saver.put(lambda: done.append("rested"), optional=True)
        time.sleep(0.05)
        assert not done
        began = time.monotonic()
        saver.wait()
        assert done and time.monotonic() - began < 1


def fail():
    raise OSError("disk full")


def test_errors_are_raised_by_the_next_call_or_at_the_end():
    with pytest.raises(OSError, match="disk full"), Saver() as saver:
        saver.put(fail)
    with Saver() as saver:
        saver.put(fail)
        with pytest.raises(OSError, match="disk full"):
            saver.wait()
    done = []
    with pytest.raises(KeyError), Saver() as saver:  # what stops a run is not hidden
        saver.put(lambda: done.append("before"))
        raise KeyError
    assert done == ["before"]


def test_a_snapshot_survives_donation():
    step = parallel.data_parallel(lambda x: x + 1, 0, 0, donate_argnums=0)
    state = parallel.place(jnp.zeros((jax.device_count(), 3)), 0)
    kept = snapshot(state)
    assert step(state).sum() == kept.size and not kept.any()
