"""Run an iterative attack over any number of examples: slots that do not stay idle.

Every device has one tile of slots, each with an example at its own step of the attack. From time to
time the host takes out what is done and puts the next examples in, so the programs, of one static
shape, always work on images that still resist. The other slots do not influence an example, and so
neither does the moment at which it enters.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from robustjax import parallel
from robustjax.attacks._core.iterative import Example, Iterative
from robustjax.attacks._core.randomized import averaged, redraw
from robustjax.attacks._engine.examples import Examples
from robustjax.attacks._engine.model import convolves, one_example
from robustjax.attacks._engine.tiles import single, tile_size
from robustjax.parallel import Device, data_parallel, merge, place, split
from robustjax.progress import Work, announce, bar
from robustjax.promotion import promoting
from robustjax.threats._trees import of_example
from robustjax.typing import Cost

MIN_SECONDS = 0.2
"""The least time between two looks of the host at an attack that leaves no slot idle."""

MAX_STEPS = 1 << 20
"""The largest number of steps of one call; far more than any attack has."""


FOREVER = 2**31 - 1
"""Steps that no attack takes."""


class Crafted(NamedTuple):
    """Results of an attack on N examples, as NumPy arrays.

    Attributes:
      image: (N, H, W, C).
      cost: the model calls that each example took, each (N,).
      unfinished: (N,) bool: the attack was still gaining when its budget ended.
      broken: (N,) bool: it met NaN, or returned an image of NaN, for which the clean one stands.
    """

    image: np.ndarray
    cost: Cost
    unfinished: np.ndarray
    broken: np.ndarray


class Snapshot(NamedTuple):
    """Everything that a run over slots needs to resume.

    Attributes:
      crafted: the results; only rows of finished examples are filled in.
      finished: (N,) bool.
      slot: (slots,) the example in each slot, -1 for none.
      state: the attack's state in each slot.
      seconds: wall time so far, of all runs together.
    """

    crafted: Crafted
    finished: np.ndarray
    slot: np.ndarray
    state: Any
    seconds: np.ndarray | np.float64


class SnapshotStore:
    """Where snapshots are kept; this base class keeps none."""

    def load(self, template: Callable[[], Snapshot]) -> Snapshot | None:
        """The last snapshot, of the structure and shapes of `template()`, if there is one."""
        return None

    def save(self, take: Callable[[], Snapshot], last: bool) -> None:
        """Save what `take()` returns if it is time to, or if it is the last one."""


NOTHING = SnapshotStore()


def over_slots(
    attack: Iterative,
    model: Callable,
    key: jax.Array,
    path: tuple[int, ...],
    examples: Examples,
    batch_size: int | None,
    progress: str | None = None,
    store: SnapshotStore = NOTHING,
) -> tuple[Crafted, float]:
    """The attack on every example, and the seconds it took.

    Every process of a run attacks its share of the examples, and returns the results of all.

    Args:
      attack, model, key: data of the compiled programs; example i has the key fold_in(key,
        index_i), then fold_in for each number of `path`.
      path: which stage of which stage of an ensemble this is.
      examples: N of them.
      batch_size: see `tiles.tile_size`.
      progress: the title of a progress bar; None: no bar.
      store: where the run is saved, and found again after a kill.
    """
    own = dataclasses.replace(examples, **parallel.share(examples.rows()))
    crafted, seconds = _on_this_process(attack, model, key, path, own, batch_size, progress, store)
    return parallel.join(crafted, len(examples)), parallel.broadcast(seconds)


def _on_this_process(attack, model, key, path, examples, batch_size, progress, store):
    devices = tuple(jax.local_devices())
    shared = attack, model, key, np.asarray(path, np.int32)
    shared = place(jax.tree.map(single, shared), None)
    cpu = devices[0].platform == "cpu"
    machine = Machine(devices, cpu and attack.differentiates and convolves(model, examples))
    n = len(examples)
    no_calls: Any = np.zeros((2, n), np.int32)  # of NumPy, where a step's are of JAX
    nothing = Crafted(
        np.zeros_like(examples.image), Cost(*no_calls), np.zeros(n, bool), np.zeros(n, bool)
    )
    tile = tile_size(batch_size, n)
    size = len(devices) * tile
    nobody = np.full(size, -1)

    def rows_of(slot):
        return place(split(examples[np.maximum(slot, 0)].rows(), len(devices)), 0)

    def empty():
        shapes = jax.eval_shape(machine.begin, shared, rows_of(nobody))
        state = jax.tree.map(lambda s: np.zeros((size, *s.shape[2:]), s.dtype), shapes)
        return Snapshot(nothing, np.zeros(n, bool), nobody, state, np.float64(0))

    found = store.load(empty)
    now = found or Snapshot(nothing, np.zeros(n, bool), nobody, None, np.float64(0))
    crafted, finished, slot = now.crafted, now.finished, now.slot
    begun = time.monotonic() - float(now.seconds)
    # Placed as the programs return it, so that the first two calls share one compilation.
    state = place(split(now.state, len(devices)), 0) if found else None
    rows, waiting = rows_of(slot), np.setdiff1d(np.flatnonzero(~finished), slot)

    def snapshot():
        seconds = np.float64(time.monotonic() - begun)
        return Snapshot(crafted, finished, slot, merge(jax.device_get(state)), seconds)

    quiet = not progress or jax.process_index() > 0
    title = progress or type(attack).__name__
    with bar(title, total=n, initial=finished.sum(), disable=quiet) as images:
        while not finished.all():
            fresh = np.flatnonzero(slot < 0)[: len(waiting)]
            slot[fresh], waiting = waiting[: len(fresh)], waiting[len(fresh) :]
            if len(fresh):
                rows = rows_of(slot)
                entered = machine.begin(shared, rows)
                mask = split(np.isin(np.arange(size), fresh), len(devices))
                state = entered if state is None else machine.choose(mask, entered, state)
            idle = place(split(slot < 0, len(devices)), 0)
            # A tile pays for the beginning of each of its examples: about a step of all.
            patience = tile if len(waiting) else FOREVER
            state, done, result = machine.advance(shared, rows, idle, state, patience)
            out = merge(jax.device_get(done)) & (slot >= 0)
            if out.any():
                _fill(crafted, slot[out], merge(jax.device_get(result)), out)
                finished[slot[out]], slot[out] = True, -1
                images.update(out.sum())
            store.save(snapshot, last=bool(finished.all()))
    seconds = time.monotonic() - begun
    if not quiet:
        forwards, backwards = map(np.sum, crafted.cost)
        announce(Work(title, n, float(forwards + 2 * backwards), seconds))
    return crafted, seconds


def _fill(crafted: Crafted, rows: np.ndarray, result: Crafted, slots: np.ndarray) -> None:
    for column, values in zip(jax.tree.leaves(crafted), jax.tree.leaves(result), strict=True):
        column[rows] = values[slots]


class Machine:
    """The compiled programs of a set of devices, and how many steps the host asks for at a time.

    Steps are a loop on the device, with one exception: on the CPU the host calls one step after
    another where the gradient passes through convolutions. XLA lays these out well only outside of
    loops there, and inside, the input gradient of a network that does not use our convolution costs
    three to six times as much.
    """

    def __init__(self, devices: tuple[Device, ...], straight: bool):
        """Compile nothing yet; `straight`: steps are called by the host."""
        self.begin, self.choose, self._one, self._many = _compiled(devices)
        self._straight = straight
        self._steps = 1

    def advance(
        self, shared: tuple, rows: Any, idle: Any, state: Any, patience: int
    ) -> tuple[Any, Any, Crafted]:
        """(state, done or idle, result) after some steps of every slot.

        It returns when all slots are done, or when those of a device that are have rested for
        `patience` steps, all together; and before, for the host's progress bar and journal.
        """
        called = time.monotonic()
        if self._straight:
            return self._one_by_one(called, shared, rows, idle, state, patience)
        steps = np.int32(self._steps), np.int32(patience)
        state, done, result = self._many(shared, rows, idle, state, *steps)
        jax.block_until_ready(done)
        if time.monotonic() - called < MIN_SECONDS:
            self._steps = min(2 * self._steps, MAX_STEPS)
        return state, done, result

    def _one_by_one(self, called, shared, rows, idle, state, patience):
        rested = 0
        while True:
            state, done, result = self._one(shared, rows, idle, state)
            rest = jax.device_get(done).sum(-1)  # on each device
            rested += rest.max()
            late = time.monotonic() - called > MIN_SECONDS
            if rest.min() == done.shape[-1] or rested >= patience or late:
                return state, done, result


@functools.cache
def _compiled(devices: tuple[Device, ...]) -> tuple[Callable, ...]:
    """begin, choose, one step and a loop of steps, each of a tile on every device."""

    def over(function, shared, rows, *arguments):
        return jax.vmap(lambda row, *a: function(*_problem(shared, row), *a), axis_name=SLOT)(
            rows, *arguments
        )

    def begin(shared, rows):
        return over(lambda attack, *rest: attack.begin(*rest), shared, rows)

    def settled(shared, rows, idle, state):
        return over(lambda attack, *rest: attack.done(rest[-1]), shared, rows, state) | idle

    def move(shared, rows, idle, state):
        moved = over(lambda attack, *rest: attack.step(*rest), shared, rows, state)
        return _choose(settled(shared, rows, idle, state), state, moved)

    def look(shared, rows, idle, state):
        result = over(lambda attack, _, *rest: _result(attack, *rest), shared, rows, state)
        return state, settled(shared, rows, idle, state), result

    def one(shared, rows, idle, state):
        return look(shared, rows, idle, move(shared, rows, idle, state))

    def many(shared, rows, idle, state, steps, patience):
        def more(carry):
            k, rested, state = carry
            rest = settled(shared, rows, idle, state)
            return (k < steps) & (rested < patience) & ~jnp.all(rest)

        def body(carry):
            k, rested, state = carry
            state = move(shared, rows, idle, state)
            rest = settled(shared, rows, idle, state)
            return k + 1, rested + jnp.sum(rest, dtype=jnp.int32), state

        start = jnp.int32(0), jnp.int32(0), state
        _, _, state = jax.lax.while_loop(more, body, start)
        return look(shared, rows, idle, state)

    axes = {begin: (None, 0), _choose: 0, one: (None, 0, 0, 0), many: (None, 0, 0, 0, None, None)}
    return tuple(data_parallel(f, in_axes, 0, devices=devices) for f, in_axes in axes.items())


SLOT = "example"
"""The name of the mapped axis, the same as in `over_tiles`."""

DRAW = 2**31 - 1
"""Folded into the key of a randomised model's draw, unless the attack draws for itself."""


def _problem(shared, row):
    """(the attack, the model, the example) of this row."""
    attack, model, key, path = shared
    key = jax.random.fold_in(key, row["index"])
    for i in path:
        key = jax.random.fold_in(key, i)
    logits_fn = redraw(averaged(one_example(model)), jax.random.fold_in(key, DRAW))
    example = Example(key, row["image"], row["label"], row["target"])
    return of_example(attack, row["position"]), logits_fn, example


def _result(attack, example, state) -> Crafted:
    image = attack.result(example, state)
    finite = jnp.all(jnp.isfinite(image))
    columns: tuple[Any, ...] = (  # here of JAX, on the host of NumPy
        jnp.where(finite, image, example.x),
        Cost(*(jnp.asarray(n, jnp.int32) for n in attack.spent(state))),
        attack.unfinished(state),
        attack.broken(state) | ~finite,
    )
    return Crafted(*columns)


def program(attack: Iterative, model: Callable, key: jax.Array, examples: Examples) -> ClosedJaxpr:
    """The program of the attack for one example: the beginning, a step, the result."""

    @promoting
    def one(shared, row):
        attack, logits_fn, example = _problem(shared, row)
        state = attack.step(logits_fn, example, attack.begin(logits_fn, example))
        return attack.done(state), _result(attack, example, state)

    row = jax.tree.map(lambda a: a[0], examples.rows())
    return jax.make_jaxpr(one)((attack, model, key, np.zeros(0, np.int32)), row)


def tile_program(
    attack: Iterative,
    model: Callable,
    image_shape: Sequence[int],
    devices: tuple[Device, ...],
    tile: int,
) -> tuple[Callable, tuple]:
    """The program that takes steps of a tile on each device, and its arguments as shapes."""
    n = len(devices)

    def rows(shape, dtype):
        return jax.ShapeDtypeStruct((n, tile, *shape), dtype)

    key = jax.eval_shape(lambda: jax.random.key(0))
    shared = jax.tree.map(single, (attack, model, key, np.zeros(1, np.int32)))
    batch = {
        "image": rows(image_shape, np.float32),
        "label": rows((), np.int32),
        "target": None,
        "index": rows((), np.int32),
        "position": rows((), np.int32),
    }
    begin, _, _, many = _compiled(devices)
    state = jax.eval_shape(begin, shared, batch)
    return many, (shared, batch, rows((), bool), state, np.int32(0), np.int32(0))


def _choose(mask: jax.Array, yes: Any, no: Any) -> Any:
    """Per slot; a mask of shape (slots,) against leaves of shape (slots, ...)."""
    return jax.tree.map(
        lambda a, b: jnp.where(mask.reshape(-1, *(1,) * (a.ndim - 1)), a, b), yes, no
    )
