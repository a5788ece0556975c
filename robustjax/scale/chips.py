"""What each kind of chip has: memory, peak, bandwidth and links, as its maker publishes them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from robustjax.checks import checked, shown

GB, TERA = 1e9, 1e12


class Chip(NamedTuple):
    """One accelerator.

    Attributes:
      name: as people say it.
      kinds: what `jax.Device.device_kind` begins with.
      memory: bytes.
      flops: dense bfloat16 operations a second at the peak (float16 where there is no bfloat16).
      bandwidth: bytes a second between the chip and its memory.
      link: bytes a second between the chip and its neighbours, all links and both directions
        together; 0 where there are none but the bus.

    >>> Chip("toy", ("Toy",), memory=8e9, flops=1e12, bandwidth=1e11, link=0.0).share(2).memory
    4000000000.0
    """

    name: str
    kinds: tuple[str, ...]
    memory: float
    flops: float
    bandwidth: float
    link: float

    def share(self, parts: int) -> Chip:
        """What each of several JAX devices on one chip has (a TPU v4 or v7x shows two)."""
        numbers = (self.memory, self.flops, self.bandwidth, self.link)
        return Chip(self.name, self.kinds, *(number / parts for number in numbers))


def _chip(name, kinds, memory, flops, bandwidth, link=0.0) -> Chip:
    return Chip(name, kinds, memory * GB, flops * TERA, bandwidth * GB, link * GB)


GIB = 2**30 / GB
CHIPS = (
    # cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e and /tpu7x ("System architecture")
    _chip("TPU v4", ("TPU v4",), 32 * GIB, 275, 1228, 300),
    _chip("TPU v5e", ("TPU v5 lite", "TPU v5e"), 16 * GIB, 197, 819, 200),
    _chip("TPU v5p", ("TPU v5",), 95 * GIB, 459, 2765, 600),
    _chip("TPU v6e", ("TPU v6 lite", "TPU v6e"), 32 * GIB, 918, 1638, 400),
    _chip("TPU v7x", ("TPU7x", "TPU v7"), 192 * GIB, 2307, 7380, 1200),
    # nvidia.com: the data sheets of each, dense numbers; a card's own name says its memory
    _chip("V100", ("Tesla V100",), 16 * GIB, 125, 900, 300),
    _chip("T4", ("Tesla T4",), 16 * GIB, 65, 320),
    _chip(
        "A100 40GB", ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"), 40 * GIB, 312, 1555, 600
    ),
    _chip("A100 80GB", ("NVIDIA A100",), 80 * GIB, 312, 2039, 600),
    _chip("L4", ("NVIDIA L4",), 24 * GIB, 121, 300),
    _chip("RTX 4090", ("NVIDIA GeForce RTX 4090",), 24 * GIB, 165, 1008),
    _chip("H100 PCIe", ("NVIDIA H100 PCIe",), 80 * GIB, 756, 2000, 600),
    _chip("H100", ("NVIDIA H100",), 80 * GIB, 989, 3350, 900),
    _chip("H200", ("NVIDIA H200",), 141, 989, 4800, 900),
    _chip("B200", ("NVIDIA B200",), 180, 2250, 8000, 1800),
)
"""The chips that are known. The first whose longest kind matches counts."""


def _check_device(name: str, device: Any) -> None:
    if not isinstance(device, jax.Device):
        raise ValueError(f"{name} must be one such as jax.devices()[0], got {shown(device)}")


@checked(device=_check_device)
def chip_of(device: Any) -> Chip | None:
    """The chip of a `jax.Device`, by its kind; None for one that the table lacks, such as a CPU.

    >>> chip_of(jax.devices("cpu")[0]) is None
    True
    """
    return named(device.device_kind)


def named(kind: str) -> Chip | None:
    """The chip with the longest kind that a device's begins with.

    >>> named("TPU v5 lite").name, named("TPU v5").name, named("NVIDIA H100 80GB HBM3").name
    ('TPU v5e', 'TPU v5p', 'H100')
    """
    found = [(len(k), chip) for chip in CHIPS for k in chip.kinds if kind.startswith(k)]
    return max(found)[1] if found else None
