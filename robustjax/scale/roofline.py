"""Seconds at best: what a program would take if the slowest of its three demands took it all."""

from __future__ import annotations

from typing import NamedTuple

from robustjax.scale.chips import Chip
from robustjax.scale.program import Program


class Roofline(NamedTuple):
    """Lower estimates of the seconds of one call, each as if the others took none.

    Attributes:
      compute: at the chip's peak.
      memory: of the traffic, at the chip's bandwidth.
      links: of the collectives, at all the chip's links together.

    >>> Roofline(compute=2.0, memory=3.0, links=0.5).seconds
    3.0
    """

    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        """The largest."""
        return max(self)

    @property
    def bound(self) -> str:
        """The name of the largest."""
        return self._fields[self.index(max(self))]


def roofline(program: Program, flops: int, devices: int, chip: Chip) -> Roofline:
    """The estimate of a program that computes `flops` on each of `devices`.

    An all-reduce passes a device 2 (n - 1) / n times its bytes, in a ring; other collectives count
    the same.

    >>> from robustjax.scale import chips, program
    >>> toy = chips.Chip("toy", (), memory=1e9, flops=1e12, bandwidth=1e11, link=0.0)
    >>> none = program.Memory(0, 0, 0)
    >>> program = program.Program(none, (), traffic=10**9, counts={}, cycles=0, unknown=())
    >>> roofline(program, 10**9, 1, toy)
    Roofline(compute=0.001, memory=0.01, links=0.0)
    """
    passed = 2 * (devices - 1) / devices * program.exchanged
    links = passed / chip.link if chip.link else 0.0
    return Roofline(flops / chip.flops, program.traffic / chip.bandwidth, links)
