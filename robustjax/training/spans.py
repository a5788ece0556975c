"""Many training steps a call: the host looks up where something is to be written, not before.

Where the examples fit on the devices, one program draws the batches there and runs any number of
steps. Else, and for the networks that XLA:CPU runs faster without a loop, the steps are called one
by one, with batches that another thread has put on the devices.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from robustjax import models, parallel
from robustjax.convolutions import is_slow_in_a_loop
from robustjax.data.ahead import ahead
from robustjax.data.plan import Plan
from robustjax.data.resident import Layout, layout, put, take
from robustjax.training.methods.base import Method
from robustjax.training.net import Net
from robustjax.training.placement import REPLICATED, Placement
from robustjax.training.recipes import Recipe
from robustjax.training.state import AXES, TrainState
from robustjax.training.step import OUT_AXES, bare, make_step, program

SECONDS = 0.5
"""About how long the host does not look up: a signal waits so long."""
WAITING, READERS = 4, 2
"""Streamed batches that wait for their step, and threads that read them."""

Metrics = dict[str, np.ndarray]
Span = Callable[[TrainState, Method, int, int], tuple[TrainState, Metrics]]
"""(state, method, start, stop) -> the state after steps start + 1 to stop, of one epoch, and each
metric of these steps (stop - start,)."""


@contextlib.contextmanager
def spans(
    module: models.Network,
    state: TrainState,
    recipe: Recipe,
    plan: Plan,
    key: jax.Array,
    total: int,
    where: Layout,
    home: Placement = REPLICATED,
) -> Iterator[Span]:
    """The function that runs a run's steps.

    Args:
      module: the model.
      state: before the first step that will be asked for.
      recipe: everything that is not part of the method.
      plan: the batches.
      key: of the run; all randomness depends only on (key, step, index).
      total: the last step.
      where: the home of the examples, as `residence` says.
      home: where the state lives.

    Guarantees:
      The bits of the state do not depend on where spans begin and end.
    """
    given = parallel.place(recipe, None)
    steps = range(int(state.step), total)
    if where == "streamed":
        made = _one_by_one(module, given, plan, key, steps, home)
    else:
        made = _together(module, given, plan, key, steps, where == "sharded", home)
    with made as span:
        yield span


def residence(
    module: models.Network,
    variables: Any,
    plan: Plan,
    memory: float,
    devices: tuple[parallel.Device, ...],
) -> Layout:
    """Where a run's examples live: see `layout`; streamed too for a network slow in a loop."""
    if devices[0].platform == "cpu" and slow_in_a_loop(module, variables, plan.train.image_shape):
        return "streamed"
    return layout(plan, memory, len(devices))


def slow_in_a_loop(module: models.Network, variables: Any, image_shape: tuple[int, ...]) -> bool:
    """Whether XLA:CPU will run this network's convolutions with a slow kernel inside a loop."""
    images = jax.ShapeDtypeStruct((2, *image_shape), np.float32)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), variables)
    net = Net(stats={}, progress=jnp.float32(0), module=module)

    def logits(variables, images):
        stats = {name: tree for name, tree in variables.items() if name != "params"}
        return net.logits(variables["params"], images, stats)

    return is_slow_in_a_loop(logits, shapes, images)


@contextlib.contextmanager
def _together(module, recipe, plan, key, steps, sharded, home):
    """Spans of one program, which finds the examples and the order of the epoch on the devices."""
    about = plan.train.num_classes, plan.train.image_shape
    call = span_program(module, steps.stop, *about, sharded, home)
    tables, length = put(plan, sharded), plan.steps_per_epoch

    def order(epoch: int) -> Any:
        rows = plan.epoch(epoch, jax.process_index(), jax.process_count())
        rows = rows.reshape(length, jax.local_device_count(), -1).swapaxes(0, 1)
        return epoch, parallel.place(rows, 0)

    epochs = range(steps.start // length, -(-steps.stop // length))
    with ahead(order, epochs, depth=2) as orders:
        current: tuple[int, Any] = (-1, None)

        def span(state, method, start, stop):
            nonlocal current
            epoch, first = divmod(start, length)
            while current[0] < epoch:
                current = next(orders)
            last = first + stop - start
            bounds = np.int32(first), np.int32(last)
            state, metrics = call(state, method, recipe, key, tables, current[1], *bounds)
            return state, {name: np.asarray(a)[first:last] for name, a in metrics.items()}

        yield span


def span_program(
    module: models.Network,
    total: int,
    num_classes: int,
    image_shape: tuple[int, int, int],
    sharded: bool,
    home: Placement = REPLICATED,
    devices: tuple[parallel.Device, ...] | None = None,
) -> Callable:
    """The steps of a span on all devices, which hold the examples.

    Args:
      module, total, num_classes, home, devices: as for `step.program`.
      image_shape: (H, W, C).
      sharded: whether the examples are spread over the devices; see `data.resident`.

    Returns:
      (state, method, recipe, key, tables, order, first, last) -> (state, metrics), where `order`
      (devices, steps of an epoch, b) has the rows of each step, and steps first to last - 1 of the
      epoch run.
    """
    return _program(bare(module), total, num_classes, image_shape, sharded, home, devices)


@functools.cache
def _program(module, total, num_classes, image_shape, sharded, home, devices) -> Callable:
    def span(state, method, recipe, key, tables, order, first, last):
        one = home.step(make_step(module, recipe, total, num_classes), devices)
        step = jax.jit(one)  # traced once for both uses

        def at(i, state):
            return step(state, method, key, take(tables, order[i], image_shape, sharded))

        def run(i, carry):
            state, kept = carry
            state, metrics = at(i, state)
            return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), kept, metrics)

        shapes = jax.eval_shape(at, 0, state)[1]
        kept = jax.tree.map(lambda one: jnp.zeros(len(order), one.dtype), shapes)
        return lax.fori_loop(first, last, run, (state, kept))

    tables = 0 if sharded else None
    in_axes = (AXES, None, None, None, tables, 0, None, None)
    return home.run(span, in_axes, OUT_AXES, devices)


@contextlib.contextmanager
def _one_by_one(module, recipe, plan, key, steps, home):
    """Spans of single steps, whose batches other threads read and put on the devices."""
    call = program(module, steps.stop, plan.train.num_classes, home)

    def batch(step: int) -> Any:
        found = plan.batch(step, jax.process_index(), jax.process_count())
        return parallel.place(parallel.split(found, jax.local_device_count()), 0)

    with ahead(batch, steps, depth=WAITING, threads=READERS) as batches:

        def span(state, method, start, stop):
            found = []
            for _ in range(start, stop):
                state, metrics = call(state, method, recipe, key, next(batches))
                found.append(metrics)
                jax.block_until_ready(found[-WAITING:][0])  # no more batches than that in memory
            names = found[0]
            return state, {name: np.stack([np.asarray(m[name]) for m in found]) for name in names}

        yield span


class Pace:
    """How many steps to run before the host looks up again: as many as take about `SECONDS`."""

    def __init__(self):
        self.steps, self._began = 1, 0.0

    def begin(self) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def end(self, steps: int) -> None:
        """Learn from so many steps; a span is at most eight times as long as the one before."""
        seconds = time.monotonic() - self._began
        self.steps = max(1, min(8 * steps, int(steps * SECONDS / max(seconds, 1e-9))))
