"""The one package that knows devices and processes."""

from robustjax.parallel.axes import AXIS
from robustjax.parallel.axes import Device as Device
from robustjax.parallel.machine import device_memory, machine_memory, usable_cores, use_all_cores
from robustjax.parallel.placement import (
    hold,
    place,
    scatter,
    shapes,
    to_global,
    to_local,
    whole,
)
from robustjax.parallel.processes import (
    any_process,
    barrier,
    broadcast,
    check_same,
    gather,
    initialize,
    join,
    share,
)
from robustjax.parallel.programs import data_parallel, emulate, spread
from robustjax.parallel.shards import merge, split

__all__ = [
    "AXIS",
    "any_process",
    "barrier",
    "broadcast",
    "check_same",
    "data_parallel",
    "device_memory",
    "emulate",
    "gather",
    "hold",
    "initialize",
    "join",
    "machine_memory",
    "merge",
    "place",
    "scatter",
    "shapes",
    "share",
    "split",
    "spread",
    "to_global",
    "to_local",
    "usable_cores",
    "use_all_cores",
    "whole",
]
