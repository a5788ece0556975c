"""The machine: its cores as devices, and its memory."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import jax

from robustjax.checks import INF, checked


@checked(batch_size=(1, INF))
def use_all_cores(batch_size: int = 16) -> None:
    """Make one CPU device per core, which is faster than one device with many threads.

    The number of devices is a power of two, at most 16, that divides `batch_size`. GPUs and TPUs
    stay as they are, and so does a number that is already set (`JAX_NUM_CPU_DEVICES`).

    Call it before JAX initialises; afterwards it has no effect.

    >>> rj.parallel.use_all_cores(batch_size=128)  # 8 devices on a machine with 12 cores
    """
    options: Any = jax.config
    if options.jax_num_cpu_devices < 0:
        devices = 1 << (min(usable_cores(), 16).bit_length() - 1)
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", math.gcd(devices, batch_size))


def usable_cores() -> int:
    """The number of cores this process may run on; all of them if the platform does not say.

    >>> rj.parallel.usable_cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_memory() -> int:
    """Bytes of memory of one of this process's devices; CPU devices share the machine's.

    >>> rj.parallel.device_memory() > 1 << 20
    True
    """
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return machine_memory() // jax.local_device_count()


def machine_memory() -> int:
    """Bytes that this process may use: the machine's, or its container's.

    >>> rj.parallel.machine_memory() > 1 << 20
    True
    """
    if not hasattr(os, "sysconf"):  # Windows does not say
        return 4 << 30
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no limit: the file is missing, or says 'max'
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found
