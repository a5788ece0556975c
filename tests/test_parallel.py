import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from two_processes import one_step, plain

from robustjax import files, parallel
from robustjax.parallel import AXIS


def test_split_and_merge_are_inverse():
    tree = {"x": np.arange(24).reshape(8, 3)}
    np.testing.assert_array_equal(parallel.merge(parallel.split(tree, 4))["x"], tree["x"])
    with pytest.raises(ValueError, match="8 examples cannot be split evenly over 3 devices"):
        parallel.split(tree, 3)


def mean(state, x):
    return lax.pmean(state + x.sum(), AXIS), x + 1


def test_data_parallel_equals_emulate():
    axes = {"in_axes": (None, 0), "out_axes": (None, 0)}
    x = parallel.split(np.arange(8.0, dtype=np.float32), 4)
    for a, b in zip(
        parallel.data_parallel(mean, **axes)(jnp.float32(1), x),
        parallel.emulate(mean, **axes)(jnp.float32(1), x),
        strict=True,
    ):
        np.testing.assert_allclose(a, b)


def test_emulate_refuses_what_was_not_reduced():
    with pytest.raises(ValueError, match="out_axes"):
        parallel.emulate(lambda x: x, in_axes=0, out_axes=None)(jnp.arange(4.0))


def test_placed_state_compiles_once():
    compiled = []
    listen = lambda name, _, **rest: compiled.append(name)  # noqa: E731
    step = parallel.data_parallel(mean, (None, 0), (None, 0), donate_argnums=0)
    state = parallel.place(jnp.float32(1), None)
    batch = parallel.split(np.ones(8, np.float32), 4)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for _ in range(3):
            state, _ = step(state, batch)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled.count("/jax/core/compile/backend_compile_duration") == 1


def test_two_processes_equal_one(tmp_path):
    """Runs of two processes with two CPU devices each, and a resumption, against one process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    script, together = Path(__file__).with_name("two_processes.py"), tmp_path / "together"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, script, address, str(i), str(together)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    one_step(tmp_path / "alone")
    plain(tmp_path / "whole", shard_state=False)
    for pair in (("together", "alone"), ("parts", "whole")):
        two, one = (np.load(tmp_path / run / "weights_last.npz") for run in pair)
        assert set(two) == set(one)
        for name in one:
            np.testing.assert_allclose(two[name], one[name], atol=1e-5, err_msg=name)
    rows = [files.read_metrics(run / "metrics.jsonl") for run in (together, tmp_path / "alone")]
    assert [row["split"] for row in rows[0]] == [row["split"] for row in rows[1]]


def devices_of(monkeypatch, cores, before=-1, **batch):
    """What the number of CPU devices is after `use_all_cores` on a machine of some cores."""
    config = SimpleNamespace(jax_num_cpu_devices=before)
    config.update = lambda name, value: setattr(config, name, value)
    monkeypatch.setattr(parallel.machine, "jax", SimpleNamespace(config=config))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 96)
    parallel.use_all_cores(**batch)
    return config.jax_num_cpu_devices


@pytest.mark.parametrize(
    ("cores", "devices"), [(1, 1), (2, 2), (3, 2), (6, 4), (12, 8), (16, 16), (17, 16), (64, 16)]
)
def test_cores_this_process_may_use_become_devices(monkeypatch, cores, devices):
    assert devices_of(monkeypatch, cores) == devices


@pytest.mark.parametrize(("batch_size", "devices"), [(50, 2), (60, 4), (51, 1), (128, 8)])
def test_a_batch_divides_over_the_cores_that_are_used(monkeypatch, batch_size, devices):
    assert devices_of(monkeypatch, cores=8, batch_size=batch_size) == devices


def test_a_number_of_devices_that_is_set_stays(monkeypatch):
    assert devices_of(monkeypatch, cores=8, before=3) == 3
    assert devices_of(monkeypatch, cores=8, before=3, batch_size=50) == 3


def test_once_jax_has_begun_its_devices_stay():
    def late(name, value):
        raise RuntimeError("config should be updated before backends are initialized")

    with pytest.MonkeyPatch.context() as patch:
        config = SimpleNamespace(jax_num_cpu_devices=-1, update=late)
        patch.setattr(parallel.machine, "jax", SimpleNamespace(config=config))
        parallel.use_all_cores()
    assert config.jax_num_cpu_devices == -1


def test_all_cores_count_where_the_platform_knows_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    counts = iter([6, None])
    monkeypatch.setattr(os, "cpu_count", lambda: next(counts))
    assert [parallel.usable_cores(), parallel.usable_cores()] == [6, 1]
