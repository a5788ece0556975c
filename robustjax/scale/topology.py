"""The devices to plan for: those at hand, or a TPU slice that nobody has to own."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from robustjax.checks import checked
from robustjax.scale.chips import Chip, chip_of

EXAMPLES = "v4:2x2x2, v5e:4x4, v5p:4x4x4, v6e:8x8"


class Slice(NamedTuple):
    """Devices and what each of them has.

    Attributes:
      name: the topology, or the kind of the local device.
      devices: of all hosts.
      chip: each device's share of its chip; None where the table of chips does not know it.
      chips: the number of chips.

    >>> slice_of(None).devices == tuple(jax.devices())
    True
    """

    name: str
    devices: tuple[Any, ...]
    chip: Chip | None
    chips: int


@checked
def slice_of(topology: str | None) -> Slice:
    """The devices of a TPU topology, such as 'v5p:4x4x4', from its compiler; None: those at hand.

    A slice needs libtpu, which pip installs on any Linux machine: `pip install 'robustjax[tpu]'`.

    Raises:
      ImportError: there is no libtpu.
      ValueError: no such topology.
      OSError: another process uses the TPU of this machine.

    >>> slice_of("a pod")
    Traceback (most recent call last):
    ValueError: no topology is named 'a pod'; write for example v4:2x2x2, v5e:4x4, ...
    """
    if topology is None:
        devices = tuple(jax.devices())
        return Slice(devices[0].device_kind, devices, chip_of(devices[0]), len(devices))
    if not re.fullmatch(r"\w+:\d+(x\d+){0,2}", topology):
        raise ValueError(f"no topology is named {topology!r}; write for example {EXAMPLES}")
    if importlib.util.find_spec("libtpu") is None:
        raise ImportError(
            f"the compiler for {topology} is missing: pip install 'robustjax[tpu]' brings it to "
            "any Linux machine, no TPU is needed"
        )
    devices = tuple(_described(topology).devices)
    chips = math.prod(map(int, topology.partition(":")[2].split("x")))
    chip = chip_of(devices[0])
    share = None if chip is None else chip.share(max(1, len(devices) // chips))
    return Slice(topology, devices, share, chips)


def _described(topology: str) -> Any:
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else libtpu asks a cloud that is not there
    if not any(Path("/dev").glob("accel[0-9]*")) and not any(Path("/dev/vfio").glob("[0-9]*")):
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no TPU that two could fight for
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        if "lockfile" in text:
            raise OSError(
                "another process uses the TPU of this machine, and libtpu serves one at a time: "
                "wait for it, or plan on a machine without a TPU; if there is no such process, "
                "delete /tmp/libtpu_lockfile"
            ) from error
        raise ValueError(
            f"no topology is named {topology!r} ({text.partition(': ')[2]}); write for example "
            f"{EXAMPLES}"
        ) from error
