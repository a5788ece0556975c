"""The arithmetic of a program, counted on its jaxpr: loops multiplied out, nothing twice.

Only matrix products and convolutions count, as in the literature's "model FLOPs": a multiplication
and an addition for each pair that meets. Zeros of a padding meet nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters import partial_eval

PLATFORM = "platform_index"
"""The primitive that chooses a branch when a program is lowered for a platform."""


class Flops(NamedTuple):
    """What one call of a program computes.

    Attributes:
      count: floating point operations of products and convolutions.
      unbounded: the number of loops whose length depends on the data; each was counted once.
    """

    count: int
    unbounded: int

    def __add__(self, other: Any) -> Flops:  # type: ignore[override]
        return Flops(self.count + other.count, self.unbounded + other.unbounded)


def count(closed: ClosedJaxpr) -> Flops:
    """Count a jaxpr as an accelerator runs it, without what no output needs.

    The body of a `shard_map` or a `pmap` counts once: as on one of the devices. Of a conditional
    the longest branch counts.

    >>> dot = jax.make_jaxpr(lambda a, b: a @ b)(jnp.ones((2, 3)), jnp.ones((3, 5)))
    >>> count(dot)
    Flops(count=60, unbounded=0)
    """
    needed, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return _count(needed)


def _count(jaxpr: Jaxpr) -> Flops:
    chosen: set[Any] = set()
    total = Flops(0, 0)
    for eqn in jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        if name == PLATFORM:
            chosen |= set(eqn.outvars)
        elif name == "dot_general":
            total += Flops(_product(eqn), 0)
        elif name == "conv_general_dilated":
            total += Flops(_convolution(eqn), 0)
        elif name == "scan":
            body = _count(params["jaxpr"].jaxpr)
            total += Flops(params["length"] * body.count, body.unbounded)
        elif name == "while":
            parts = [_count(params[part].jaxpr) for part in ("cond_jaxpr", "body_jaxpr")]
            total += parts[0] + parts[1] + Flops(0, 1)
        elif name == "cond":
            branches = [_count(branch.jaxpr) for branch in params["branches"]]
            total += branches[-1] if eqn.invars[0] in chosen else max(branches)
        else:
            for inner in _inside(params):
                total += _count(inner)
    return total


def _inside(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """The jaxprs among the parameters of a call."""
    for value in params.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value


def _product(eqn: Any) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _convolution(eqn: Any) -> int:
    """Twice the pairs of an input and a kernel's entry that meet, over all outputs."""
    left, right = (v.aval.shape for v in eqn.invars)
    out, params = eqn.outvars[0].aval.shape, eqn.params
    lhs, rhs, result = params["dimension_numbers"]
    pairs = 1
    for axis in range(len(lhs) - 2):
        pairs *= _meetings(
            left[lhs[2 + axis]],
            right[rhs[2 + axis]],
            out[result[2 + axis]],
            params["window_strides"][axis],
            params["padding"][axis][0],
            params["lhs_dilation"][axis],
            params["rhs_dilation"][axis],
        )
    return 2 * out[result[0]] * out[result[1]] * right[rhs[1]] * pairs


def _meetings(size, taps, outputs, stride, low, spread, dilation) -> int:
    """The pairs of an output and a tap of the kernel that meet an input, along one axis."""
    found = 0
    for tap in range(taps):
        for output in range(outputs):
            at = output * stride + tap * dilation - low
            found += 0 <= at < (size - 1) * spread + 1 and at % spread == 0
    return found
