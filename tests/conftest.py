"""Four CPU devices, small tiles, cheap compilation, and JAX's strict modes for every test."""

import gc
import importlib.util
import os
import pathlib
import signal

import jax
import pytest

from robustjax.attacks._engine import tiles

QUICK = "--xla_cpu_opt_preset=FAST_COMPILE --xla_backend_optimization_level=0"
QUICK += " --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):  # newer ones have only the emitters that compile slower
    QUICK += " --xla_cpu_use_fusion_emitters=false"
REAL_TILE = tiles.CPU_TILE
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " " + QUICK
gc.set_threshold(200_000, 50, 100)  # a twentieth of the time went into looking for cycles

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
tiles.CPU_TILE = 2  # eight slots, so that few images are enough; test_same_bits has the real one
if jax.default_backend() != "cpu":  # the tests' tolerances are not those of TF32 and bfloat16
    jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(autouse=True)
def signals_are_heard():
    """A suite started in the background of a shell would ignore Ctrl-C, and so would its tests."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def registries():
    """What a test registers is forgotten after it."""
    from robustjax import attacks, detection, spec, threats, training
    from robustjax.data.load import SOURCES
    from robustjax.models.adapt import FACTORIES

    tables = [attacks.ATTACKS, detection.DETECTORS, training.METHODS, training.CATALOGUE]
    tables += [spec.KINDS[attacks.starts.Start], threats.THREATS, training.SCHEDULES]
    tables += [FACTORIES, SOURCES]
    kept = [dict(table) for table in tables]
    yield
    for table, known in zip(tables, kept, strict=True):
        table.clear()
        table.update(known)


def pytest_collection_modifyitems(items):
    """Without libtpu say so, loudly, instead of asking for it."""
    if importlib.util.find_spec("libtpu") is None:
        reason = "NO TPU COMPILER: pip install '.[tpu]' brings it to any Linux machine"
        for item in items:
            if item.get_closest_marker("tpu_compiler"):
                item.add_marker(pytest.mark.skip(reason=reason))


def many_maps():
    """Whether a process has 8,000 memory maps: 2 GB of programs, an eighth of what Linux allows."""
    maps = pathlib.Path("/proc/self/maps")
    return not maps.exists() or maps.read_bytes().count(b"\n") > 8_000


@pytest.fixture(autouse=True, scope="module")
def forget_programs(request):
    """Drop compiled programs around a module that patches what they are made of, or when many.

    Dropping them after each module costs a fifth of the time of those that patch nothing.
    """
    patches = "monkeypatch" in request.path.read_text().lower()
    if patches:
        jax.clear_caches()
    yield
    if patches or many_maps():
        jax.clear_caches()
