"""Compiled programs as text: `parse` reads what `compiled.as_text()` prints, once."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

BITS = {"pred": 8, "token": 0, "opaque": 0}
"""Types whose name does not end in their size; f8e4m3 and the like have 8 bits."""

ARRAY = re.compile(r"([a-z]\w*)\[([\d,<= ]*)\](?:\{([^{}]*)\})?")
HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
NAME = re.compile(r"%([\w.\-]+)")


class Array(NamedTuple):
    """One array of a type: its element type, its sides, and its layout as the compiler prints it.

    >>> arrays("bf16[16,32]{1,0:T(8,128)(2,1)}")[0].padded
    4096
    """

    kind: str
    sides: tuple[int, ...]
    layout: str

    @property
    def bits(self) -> int:
        """Of an element."""
        if self.kind in BITS:
            return BITS[self.kind]
        found = re.match(r"[a-z]+(\d+)", self.kind)
        return int(found[1]) if found else 0

    @property
    def bytes(self) -> int:
        """Without padding."""
        return math.prod(self.sides) * self.bits // 8

    @property
    def padded(self) -> int:
        """The bytes that it takes: a TPU rounds the last axes of a layout up to whole tiles."""
        order, tile = self.layout.partition(":")[0], re.search(r"T\(([\d,]+)\)", self.layout)
        if not tile:
            return self.bytes
        sides = [
            self.sides[int(axis)] for axis in order.split(",") if axis
        ]  # the fastest axis first
        tiles = [int(side) for side in reversed(tile[1].split(","))]
        sides += [1] * (len(tiles) - len(sides))
        whole = [-(-side // tile) * tile for side, tile in zip(sides, tiles, strict=False)]
        return math.prod(whole + sides[len(tiles) :]) * self.bits // 8

    @property
    def on_chip(self) -> bool:
        """Whether it never leaves the chip's own fast memory (a memory space other than 0)."""
        return bool(re.search(r"S\([1-9]", self.layout))


def arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a type as it is printed, which may be a tuple.

    >>> [array.sides for array in arrays("(f32[8]{0}, s32[], /*index=2*/bf16[2,3]{1,0})")]
    [(8,), (), (2, 3)]
    """
    return tuple(
        Array(kind, tuple(int(re.sub(r"\D", "", s)) for s in sides.split(",") if s), layout)
        for kind, sides, layout in ARRAY.findall(text)
    )


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
      name: unique in its computation.
      opcode: e.g. 'fusion'.
      type: its result, as printed; `arrays` reads it.
      operands: names, or for a parameter and a constant what stands in the parentheses.
      attributes: the rest of the line.
      root: whether it is the result of its computation.

    >>> line = "  ROOT %add.1 = f32[8]{0} add(%x, f32[8]{0} %y), metadata={}"
    >>> instruction(line).opcode, instruction(line).operands
    ('add', ('x', 'y'))
    """

    name: str
    opcode: str
    type: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Of its result."""
        return arrays(self.type)

    def called(self, *keys: str) -> list[str]:
        """The names of the computations under these attributes.

        >>> line = "  %w = s32[] while(%t), condition=%c.1, body=%b.1"
        >>> instruction(line).called("body")
        ['b.1']
        """
        found = []
        for key in keys:
            for text in re.findall(rf"\b{key}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.attributes):
                found += [name.strip(" %{}") for name in text.split(",")]
        return found


class Computation(NamedTuple):
    """A function of a module: instructions by their names, in the order of the schedule.

    >>> text = "ENTRY %main (x: f32[]) -> f32[] {\\n  ROOT %x = f32[] parameter(0)\\n}"
    >>> parse(text).entry.root.opcode
    'parameter'
    """

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """Its result."""
        return next(i for i in self.instructions.values() if i.root)


class Module(NamedTuple):
    """A compiled program: its computations by their names, and the first to run.

    >>> module = parse("%f (x: f32[]) -> f32[] {\\n}\\nENTRY %main () -> f32[] {\\n}")
    >>> sorted(module.computations), module.entry.name
    (['f', 'main'], 'main')
    """

    computations: dict[str, Computation]
    entry: Computation


def parse(text: str) -> Module:
    """Read a module in the text form of XLA.

    Raises:
      ValueError: it has no entry.

    >>> parse("a poem")
    Traceback (most recent call last):
    ValueError: this is no compiled program: it has no ENTRY
    """
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        if current is None:
            if header := HEADER.match(line):
                current = computations[header[2]] = Computation(header[2], {})
                entry = current if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif INSTRUCTION.match(line):
            found = instruction(line)
            current.instructions[found.name] = found
    if entry is None:
        raise ValueError("this is no compiled program: it has no ENTRY")
    return Module(computations, entry)


def instruction(line: str) -> Instruction:
    """Read one line of a computation."""
    match = INSTRUCTION.match(line)
    assert match, line
    root, name, rest = match.groups()
    end = _closed(rest, 0) if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    start = rest.index("(")
    end = _closed(rest, start)
    inside = rest[start + 1 : end - 1]
    named = NAME.findall(inside)
    operands = tuple(named) if named else tuple(inside.split(", ") if inside else ())
    return Instruction(name, rest[:start], kind, operands, rest[end:], bool(root))


def _closed(text: str, start: int) -> int:
    """The position after the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i + 1
    raise ValueError(f"an open parenthesis in {text!r}")
