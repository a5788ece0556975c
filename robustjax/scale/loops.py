"""How often each instruction of a compiled program runs: loops are multiplied out.

The compiler says how often a loop runs if that is a constant. Where it is a number among the
program's arguments, such as the steps of an attack, the loop's bound is followed back to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from robustjax.scale.hlo import Computation, Instruction, Module

SAME = {
    "bitcast",
    "broadcast",
    "convert",
    "copy",
    "copy-done",
    "copy-start",
    "optimization-barrier",
    "reshape",
}
"""Opcodes whose result is the number that they are given."""

ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "maximum": max,
    "minimum": min,
    "clamp": lambda low, a, high: min(max(low, a), high),
}

Inputs = Callable[[int], Any]
"""The values of a computation's parameters: numbers, lists of values, or None for the unknown."""


class Carried(NamedTuple):
    """An entry of a loop's state, as the loop's condition sees it."""

    place: int


class Compared(NamedTuple):
    """A comparison that could not be decided."""

    left: Any
    right: Any
    direction: str


class Run(NamedTuple):
    """An instruction, how often it runs in one call of the program, and where.

    Attributes:
      instruction, computation: it, and the computation that it is part of.
      times: how often; an instruction in a loop of unknown length counts once.
      fused: whether it is inside of a fusion, whose intermediate results are never stored.
    """

    instruction: Instruction
    computation: Computation
    times: int
    fused: bool


class Walk:
    """All instructions of a module, with how often each runs.

    Args:
      module: see `hlo.parse`.
      arguments: the numbers among the leaves of the program's arguments, by the names that the
        compiled text gives them: those that nothing reads are not there, so places say little.

    Attributes:
      unknown: the loops whose length depends on the data; they were counted once.

    >>> from robustjax.scale.hlo import parse
    >>> double = jax.jit(lambda x, n: jax.lax.fori_loop(0, n, lambda _, x: jnp.sin(x) + x[::-1], x))
    >>> program = double.lower(jnp.ones(1000), 7).compile().as_text()
    >>> walk = Walk(parse(program), {"n": 7})
    >>> max(run.times for run in walk.runs()), walk.unknown
    (7, [])
    """

    def __init__(self, module: Module, arguments: Mapping[str, float] = MappingProxyType({})):
        """Walk nowhere yet."""
        self.module, self.arguments = module, arguments
        self.unknown: list[str] = []

    def runs(self) -> Iterator[Run]:
        """Every instruction; of a conditional all branches, as if each were taken."""
        self.unknown = []
        yield from self._visit(self.module.entry, self._argument, 1, False)

    def _visit(self, computation: Computation, inputs: Inputs, times: int, fused: bool):
        for found in computation.instructions.values():
            yield Run(found, computation, times, fused)
            inner, given, often = fused, _nothing, times
            if found.opcode == "fusion":
                names, inner = found.called("calls"), True
            elif found.opcode == "while":
                names = found.called("body")
                trips = self._trips(found, computation, inputs)
                if trips is None:
                    self.unknown.append(found.name)
                often, given = (
                    times * (1 if trips is None else trips),
                    self._state(found, computation, inputs),
                )
            elif found.opcode in ("call", "async-start", "conditional"):
                names = found.called(
                    "to_apply",
                    "calls",
                    "called_computations",
                    "branch_computations",
                    "true_computation",
                    "false_computation",
                )
                if found.opcode != "conditional":
                    given = self._operands(found, computation, inputs)
            else:
                continue
            for name in names:
                yield from self._visit(self.module.computations[name], given, often, inner)

    def _argument(self, place: int) -> Any:
        """The value of the program's parameter."""
        parameters = (i for i in self.module.entry.instructions.values() if i.opcode == "parameter")
        parameter = next(i for i in parameters if i.operands == (str(place),))
        name = re.search(r'op_name="([^"]*)"', parameter.attributes)
        return self.arguments.get(name[1].replace("\\'", "'")) if name else None

    def _trips(self, loop: Instruction, computation: Computation, inputs: Inputs) -> int | None:
        said = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
        if said:
            return int(said[1])
        condition = self.module.computations[loop.called("condition")[0]]
        body = self.module.computations[loop.called("body")[0]]
        test = self._value(condition, condition.root.name, lambda _: _carried)
        if not isinstance(test, Compared) or test.direction not in ("LT", "GT"):
            return None
        counter, bound = test.left, test.right
        if test.direction == "GT":
            counter, bound = bound, counter
        if not isinstance(counter, Carried):
            return None
        start = self._value(computation, loop.operands[0], inputs)
        if isinstance(bound, Carried):
            if not self._unchanged(body, bound.place):
                return None
            bound = _entry(start, bound.place)
        first = _entry(start, counter.place)
        after = self._value(
            body, body.root.name, lambda _: lambda k: 0 if k == counter.place else None
        )
        step = _entry(after, counter.place)
        numbers = (first, bound, step)
        if not all(isinstance(n, int | float) for n in numbers) or not step:
            return None
        return max(0, -(-(int(bound) - int(first)) // int(step)))

    def _state(self, loop: Instruction, computation: Computation, inputs: Inputs) -> Inputs:
        """What the body of a loop is given: what never changes is what the loop began with."""
        body = self.module.computations[loop.called("body")[0]]

        def entry(place):
            if not self._unchanged(body, place):
                return None
            return _entry(self._value(computation, loop.operands[0], inputs), place)

        return lambda _: entry

    def _unchanged(self, body: Computation, place: int) -> bool:
        """Whether the body hands over an entry of its state as it was given."""
        after = _entry(self._value(body, body.root.name, lambda _: _carried), place)
        return after == Carried(place)

    def _operands(self, found: Instruction, computation: Computation, inputs: Inputs) -> Inputs:
        return lambda place: self._value(computation, found.operands[place], inputs)

    def _value(self, computation: Computation, name: str, inputs: Inputs) -> Any:
        """A number; a function from places to values for a tuple; None where it is neither."""
        found = computation.instructions.get(name)
        if found is None:
            return None

        def operand(place):
            return self._value(computation, found.operands[place], inputs)

        code = found.opcode
        if code == "constant":
            return _number(found.operands)
        if code == "parameter":
            return inputs(int(found.operands[0]))
        if code in SAME:
            return operand(0)
        if code == "tuple":
            return operand
        if code == "get-tuple-element":
            place = re.search(r"index=(\d+)", found.attributes)
            return _entry(operand(0), int(place[1])) if place else None
        if code == "fusion":
            inner = self.module.computations[found.called("calls")[0]]
            return self._value(inner, inner.root.name, operand)
        if code == "compare":
            direction = re.search(r"direction=(\w+)", found.attributes)
            return Compared(operand(0), operand(1), direction[1] if direction else "")
        if code in ARITHMETIC:
            values = [operand(i) for i in range(len(found.operands))]
            if all(isinstance(value, int | float) for value in values):
                return ARITHMETIC[code](*values)
        return None


def _carried(place: int) -> Carried:
    return Carried(place)


def _nothing(_: int) -> None:
    return None


def _entry(value: Any, place: int) -> Any:
    return value(place) if callable(value) else None


def _number(operands: Sequence[str]) -> int | float | None:
    """The value of a constant; None for an array's."""
    text = operands[0] if len(operands) == 1 else ""
    text = text.strip("{}") if re.fullmatch(r"\{[^{},]*\}", text) else text
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None
