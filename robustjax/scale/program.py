"""A program as the compiler leaves it: its memory, its collectives, its traffic."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.parallel import Device, data_parallel
from robustjax.scale.chips import Chip
from robustjax.scale.hlo import Computation, Module, parse
from robustjax.scale.loops import Run, Walk

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
    "collective-broadcast",
)
FREE = {
    "after-all",
    "async-done",
    "async-start",
    "bitcast",
    "call",
    "conditional",
    "constant",
    "copy-done",
    "get-tuple-element",
    "optimization-barrier",
    "parameter",
    "tuple",
    "while",
}
"""Opcodes that move nothing themselves."""

SLICES = ("dynamic-slice", "gather", "slice")
"""Opcodes that read no more of their operand than they return."""

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """The bytes of a program on one device.

    Attributes:
      arguments, outputs, temporaries: as the compiler laid them out; outputs that reuse the memory
        of arguments (donation) count in `arguments` alone.
      code: of the program itself.

    >>> Memory(arguments=3, outputs=1, temporaries=5).total
    9
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int = 0

    @property
    def total(self) -> int:
        """All at once."""
        return self.arguments + self.outputs + self.temporaries + self.code


class DoesNotFit(Exception):
    """The compiler refused a program because of the device's memory.

    Attributes:
      needed, available: bytes.
    """

    def __init__(self, needed: float, available: float):
        """Keep both."""
        super().__init__(f"it needs {needed / 2**30:.2f} GiB of {available / 2**30:.2f} GiB")
        self.needed, self.available = needed, available


@dataclasses.dataclass(frozen=True)
class Collective:
    """The collectives of one kind and size in one call of a program.

    Attributes:
      opcode: e.g. 'all-reduce'.
      bytes: of one, on one device.
      arrays: how many arrays one carries.
      times: how often it runs.

    >>> Collective("all-reduce", bytes=8, arrays=2, times=3).times
    3
    """

    opcode: str
    bytes: int
    arrays: int
    times: int


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program on one device.

    Attributes:
      memory: its bytes.
      collectives: all that it runs.
      traffic: the bytes that its instructions read from memory and write to it, loops multiplied
        out. A fusion that reads a part of an operand counts all of it, unless it only slices it.
      counts: how often each kind of instruction runs; in a fusion too, as 'fused OPCODE'.
      cycles: the TPU compiler's own estimate of the clock cycles; 0 from other compilers.
      unknown: the loops whose length depends on the data; they were counted once.

    >>> double = jax.jit(lambda x: x + x[::-1]).lower(jnp.ones(1000)).compile()
    >>> found = read(double.as_text(), Memory(4000, 4000, 0))
    >>> found.traffic, found.collectives
    (8000, ())
    """

    memory: Memory
    collectives: tuple[Collective, ...]
    traffic: int
    counts: dict[str, int]
    cycles: int
    unknown: tuple[str, ...]

    @property
    def exchanged(self) -> int:
        """Bytes of all collectives."""
        return sum(c.bytes * c.times for c in self.collectives)


def compiled(function: Any, arguments: Sequence[Any]) -> Program:
    """Compile a `parallel.data_parallel` function for its devices, and read what came out.

    Args:
      function: compiled or not; no array is made, nothing runs.
      arguments: shapes and dtypes; numbers where the length of a loop should be known.

    Raises:
      DoesNotFit: the compiler says that the device has too little memory.
    """
    try:
        found = function.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        refused = refusal(str(error))
        raise error if refused is None else refused from error
    about = found.memory_analysis()
    memory = Memory(
        about.argument_size_in_bytes,
        about.output_size_in_bytes - about.alias_size_in_bytes,
        about.temp_size_in_bytes,
        about.generated_code_size_in_bytes,
    )
    known = {}
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(tuple(arguments))):
        if isinstance(leaf, int | float | np.number):  # pmap names leaves by place, jit by path
            known[f"flat_args[{i}]"] = known[f"args{jax.tree_util.keystr(path)}"] = float(leaf)
    return read(found.as_text(), memory, known)


@functools.cache
def usable_memory(devices: tuple[Device, ...], chip: Chip) -> float:
    """The bytes that programs may use on each of these devices.

    A device at hand says it. A TPU's compiler does when it is asked for more than there is. Else it
    is all that the chip has.
    """
    with contextlib.suppress(jax.errors.JaxRuntimeError, NotImplementedError, KeyError, TypeError):
        return float(devices[0].memory_stats()["bytes_limit"])
    twice = data_parallel(lambda x: x + x, 0, 0, devices=devices)
    asked = jax.ShapeDtypeStruct((len(devices), int(2 * chip.memory) // 4), jnp.float32)
    try:
        twice.lower(asked).compile()
    except jax.errors.JaxRuntimeError as error:
        refused = refusal(str(error))
        return chip.memory if refused is None else refused.available
    return chip.memory


def refusal(message: str) -> DoesNotFit | None:
    """What the compiler's message says about memory; None if it is about something else.

    >>> refusal("RESOURCE_EXHAUSTED: HLO temporaries (47.68G) exceeds available HBM (15.75G).")
    DoesNotFit('it needs 47.68 GiB of 15.75 GiB')
    """
    found = re.findall(r"\b(\d+(?:\.\d+)?)([KMGT])i?B?\b", message)
    if "RESOURCE_EXHAUSTED" not in message or len(found) < 2:
        return None
    needed, available = (float(number) * UNITS[unit] for number, unit in found[:2])
    return DoesNotFit(needed, available)


def read(
    text: str, memory: Memory, arguments: Mapping[str, float] = MappingProxyType({})
) -> Program:
    """Count what a compiled program does; `arguments`: see `loops.Walk`."""
    module = parse(text)
    walk = Walk(module, arguments)
    counts: Counter[str] = Counter()
    collectives: Counter[tuple[str, int, int]] = Counter()
    traffic = cycles = 0
    for run in walk.runs():
        opcode = run.instruction.opcode
        counts[f"fused {opcode}" if run.fused else opcode] += run.times
        if run.fused:
            continue
        traffic += run.times * moved(run, module)
        estimate = re.search(r'"estimated_cycles":"(\d+)"', run.instruction.attributes)
        cycles += run.times * int(estimate[1]) if estimate else 0
        kind = opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            carried = run.instruction.arrays if kind == opcode else _sent(run)
            collectives[kind, sum(a.bytes for a in carried), len(carried)] += run.times
    found = tuple(Collective(*about, times) for about, times in collectives.items())
    ordered = tuple(sorted(found, key=lambda c: -c.bytes * c.times))
    return Program(memory, ordered, traffic, dict(counts), cycles, tuple(walk.unknown))


def _operands(run: Run) -> list[Any]:
    """The arrays of an instruction's operands, each operand by itself."""
    known = run.computation.instructions
    return [known[name].arrays for name in run.instruction.operands if name in known]


def _sent(run: Run) -> Any:
    """The arrays that an asynchronous collective is given."""
    return [array for operand in _operands(run) for array in operand]


def moved(run: Run, module: Module) -> int:
    """The bytes that an instruction reads from the device's memory and writes to it, once."""
    opcode = run.instruction.opcode
    if opcode in FREE or opcode.endswith("-done"):
        return 0

    def stored(arrays):
        return sum(array.padded for array in arrays if not array.on_chip)

    written = run.instruction.arrays
    if opcode.endswith("-start"):  # its result repeats the operands
        return 2 * stored(_sent(run))
    if opcode in SLICES:
        return 2 * stored(written)
    operands = _operands(run)
    if opcode == "dynamic-update-slice":
        return 2 * stored(operands[1])
    if opcode != "fusion":
        return stored(written) + sum(map(stored, operands))
    inner = module.computations[run.instruction.called("calls")[0]]
    read = [min(stored(a), _sliced(inner, place)) for place, a in enumerate(operands)]
    return stored(written) + int(sum(read))


def _sliced(fused: Computation, place: int) -> float:
    """The bytes of the slices that a fusion takes of an operand; infinite if it takes all of it."""
    inside = fused.instructions.values()
    parameter = next(i for i in inside if i.opcode == "parameter" and i.operands == (str(place),))
    users = [i for i in inside if parameter.name in i.operands]
    if any(i.opcode not in SLICES or i.operands.index(parameter.name) for i in users):
        return math.inf
    return sum(array.padded for i in users for array in i.arrays)
