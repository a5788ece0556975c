"""Run an iterative attack over any number of examples: slots that never idle.

Every device has a fixed number of slots, each with an example at its own step of the attack. After
every few steps the host takes out what is done and puts the next example in, so the one compiled
program, of one static shape, always works on images that still resist. The other slots do not
influence an example, and so neither does the moment at which it enters.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from tqdm import tqdm

from robustjax.attacks._core.iterative import Example, Iterative, distance_of, in_box, in_threat
from robustjax.attacks._core.randomized import redraw
from robustjax.attacks._engine.inputs import Examples, one_example
from robustjax.attacks._engine.tiles import tile_size
from robustjax.parallel import Device, data_parallel, merge, place, split
from robustjax.promotion import promoting
from robustjax.threats._trees import of_example
from robustjax.typing import Cost

MIN_SECONDS = 0.2
"""The least time that one call should take; a shorter one is mostly overhead."""

MAX_STEPS = 1 << 20
"""The largest number of steps of one call; far more than any attack has."""


class Crafted(NamedTuple):
    """Results of an attack on N examples, as NumPy arrays.

    Attributes:
      image: (N, H, W, C).
      distance: (N,) in the norm of the attack's threat; -1 for an attack without one.
      inside: (N,) bool: the image is inside the attack's threat model.
      in_box: (N,) bool: its pixels lie in the box of the threat.
      cost: the model calls that each example took, each (N,).
      unfinished: (N,) bool: the attack was still gaining when its budget ended.
      broken: (N,) bool: it met NaN, or returned an image of NaN, for which the clean one stands.
    """

    image: np.ndarray
    distance: np.ndarray
    inside: np.ndarray
    in_box: np.ndarray
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

    def load(self, template: Snapshot) -> Snapshot | None:
        """The last snapshot, of the structure of `template`, if there is one."""
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
    batch_size: int,
    progress: str | None = None,
    store: SnapshotStore = NOTHING,
) -> tuple[Crafted, float]:
    """The attack on every example, and the seconds it took.

    Args:
      attack, model, key: data of one compiled program; example i has the key fold_in(key, index_i),
        then fold_in for each number of `path`.
      path: which stage of which stage of an ensemble this is.
      examples: N of them.
      batch_size: slots, all devices together; rounded up as by `over_tiles`.
      progress: the title of a progress bar; None: no bar.
      store: where the run is saved, and found again after a kill.
    """
    devices = tuple(jax.local_devices())
    shared = (jax.tree.map(_single, attack), model, key, np.asarray(path, np.int32))
    advance = _compiled(devices)
    now = _empty(shared, examples, tile_size(batch_size, len(devices)))
    now = store.load(now) or now
    crafted, finished, slot = now.crafted, now.finished, now.slot
    # Placed as the program returns it, so that the first two calls share one compilation.
    state = place(split(now.state, len(devices)), 0)
    steps, begun = 1, time.monotonic() - float(now.seconds)

    def put():
        return split(examples[np.maximum(slot, 0)].rows(), len(devices))

    def snapshot():
        seconds = np.float64(time.monotonic() - begun)
        return Snapshot(crafted, finished, slot, merge(jax.device_get(state)), seconds)

    rows, waiting = put(), np.setdiff1d(np.flatnonzero(~finished), slot)
    with tqdm(
        total=len(examples), initial=finished.sum(), desc=progress, disable=not progress
    ) as bar:
        while not finished.all():
            called = time.monotonic()
            fresh = np.flatnonzero(slot < 0)[: len(waiting)]
            slot[fresh], waiting = waiting[: len(fresh)], waiting[len(fresh) :]
            if len(fresh):
                rows = put()
            flags = {"fresh": np.isin(np.arange(len(slot)), fresh), "idle": slot < 0}
            flags = split(flags, len(devices))
            state, done, result = advance(shared, rows, flags, state, np.int32(steps))
            out = merge(jax.device_get(done)) & (slot >= 0)
            if out.any():
                _fill(crafted, slot[out], merge(jax.device_get(result)), out)
                finished[slot[out]], slot[out] = True, -1
                bar.update(out.sum())
            if time.monotonic() - called < MIN_SECONDS:
                steps = min(2 * steps, MAX_STEPS)
            store.save(snapshot, last=bool(finished.all()))
    return crafted, time.monotonic() - begun


def _single(number: Any) -> Any:
    """A config's number in 32 bits also where JAX's own default is 64."""
    if isinstance(number, float) or getattr(number, "dtype", None) == np.float64:
        return np.asarray(number, np.float32)[()]
    return np.int32(number) if type(number) is int else number


def _fill(crafted: Crafted, rows: np.ndarray, result: Crafted, slots: np.ndarray) -> None:
    for column, values in zip(jax.tree.leaves(crafted), jax.tree.leaves(result), strict=True):
        column[rows] = values[slots]


@functools.cache
def _compiled(devices: tuple[Device, ...]) -> Callable:
    """(shared, rows, flags, state, steps) -> (state, done, result): `steps` steps of every slot."""

    def run(shared, rows, flags, state, steps):
        def over(function, *arguments):
            return jax.vmap(lambda row, *a: function(*_problem(shared, row), *a), axis_name=SLOT)(
                rows, *arguments
            )

        def settled(state):
            return over(lambda attack, *rest: attack.done(rest[-1]), state) | flags["idle"]

        def body(carry):
            k, state = carry
            moved = over(lambda attack, *rest: attack.step(*rest), state)
            return k + 1, _where(settled(state), state, moved)

        def more(carry):
            k, state = carry
            return (k < steps) & ~jnp.all(settled(state))

        state = jax.lax.cond(
            jnp.any(flags["fresh"]),
            lambda: _where(flags["fresh"], over(lambda attack, *rest: attack.begin(*rest)), state),
            lambda: state,
        )
        _, state = jax.lax.while_loop(more, body, (0, state))
        return state, settled(state), over(lambda attack, _, *rest: _result(attack, *rest), state)

    return data_parallel(run, in_axes=(None, 0, 0, 0, None), out_axes=0, devices=devices)


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
    logits_fn = redraw(one_example(model), jax.random.fold_in(key, DRAW))
    example = Example(key, row["image"], row["label"], row["target"])
    return of_example(attack, row["position"]), logits_fn, example


def _result(attack, example, state) -> Crafted:
    image = attack.result(example, state)
    finite = jnp.all(jnp.isfinite(image))
    image = jnp.where(finite, image, example.x)
    columns: tuple[Any, ...] = (  # here of JAX, on the host of NumPy
        image,
        distance_of(attack, image, example.x),
        in_threat(attack, image, example.x),
        in_box(attack, image, example.x),
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


def _where(mask: jax.Array, yes: Any, no: Any) -> Any:
    """Per slot; a mask of shape (slots,) against leaves of shape (slots, ...)."""
    return jax.tree.map(
        lambda a, b: jnp.where(mask.reshape(-1, *(1,) * (a.ndim - 1)), a, b), yes, no
    )


def _empty(shared: tuple, examples: Examples, size: int) -> Snapshot:
    """The snapshot before the first step: nothing finished, no slot taken."""
    row = jax.tree.map(lambda a: a[0], examples.rows())
    state, crafted = _started.eval_shape(shared, row)

    def zeros(tree, n):
        return jax.tree.map(lambda s: np.zeros((n, *s.shape), s.dtype), tree)

    n = len(examples)
    nobody = np.zeros(n, bool), np.full(size, -1)
    return Snapshot(zeros(crafted, n), *nobody, zeros(state, size), np.float64(0))


@jax.jit
@promoting
def _started(shared, row):
    """Never run: its shapes are known until `jax.clear_caches` forgets them."""
    attack, logits_fn, example = _problem(shared, row)
    state = attack.begin(logits_fn, example)
    return state, _result(attack, example, state)
