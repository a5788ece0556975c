"""Where the state of a run lives: whole on every device, or in parts."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
from typing_extensions import override

from robustjax import parallel
from robustjax.training.state import AXES, TrainState


class Placement(abc.ABC):
    """Where a state lives. Objects are compared, since programs are cached by them."""

    @abc.abstractmethod
    def put(self, state: TrainState) -> TrainState:
        """A new state, equal in every process, where it will live."""

    @abc.abstractmethod
    def run(
        self,
        function: Callable,
        in_axes: Any,
        out_axes: Any,
        devices: tuple[parallel.Device, ...] | None = None,
    ) -> Callable:
        """A function of one device, (state, ...) -> (state, ...), on all of them (or `devices`).

        It reuses the memory of the state.
        """

    @abc.abstractmethod
    def step(
        self, function: Callable, devices: tuple[parallel.Device, ...] | None = None
    ) -> Callable:
        """One step of `run`'s function, (state, ...) -> (state, metrics), with what it moves."""

    @abc.abstractmethod
    def shapes(
        self, state: TrainState, rest: Any, axes: Any, devices: tuple[parallel.Device, ...]
    ) -> tuple[TrainState, Any]:
        """The shapes of a state and of other arguments, which compile `run`'s function as arrays
        would: `axes` are those of the others."""

    @abc.abstractmethod
    def to_save(self, state: TrainState) -> TrainState:
        """The same as global arrays, for checkpoints."""

    @abc.abstractmethod
    def from_saved(self, state: TrainState) -> TrainState:
        """The inverse of `to_save`."""

    @abc.abstractmethod
    def whole(self, tree: Any) -> Any:
        """A part of a state, such as its variables, on every device."""


class Replicated(Placement):
    """The state is whole on every device; its slot is split."""

    @override
    def put(self, state: TrainState) -> TrainState:
        own = slice(*(jax.local_device_count() * (jax.process_index() + i) for i in (0, 1)))
        return parallel.place(state.replace(slot=jax.tree.map(lambda a: a[own], state.slot)), AXES)

    @override
    def run(
        self,
        function: Callable,
        in_axes: Any,
        out_axes: Any,
        devices: tuple[parallel.Device, ...] | None = None,
    ) -> Callable:
        return parallel.data_parallel(function, in_axes, out_axes, 0, devices)

    @override
    def step(
        self, function: Callable, devices: tuple[parallel.Device, ...] | None = None
    ) -> Callable:
        return function

    @override
    def shapes(
        self, state: TrainState, rest: Any, axes: Any, devices: tuple[parallel.Device, ...]
    ) -> tuple[TrainState, Any]:
        return state, rest

    @override
    def to_save(self, state: TrainState) -> TrainState:
        return parallel.to_global(state, AXES)

    @override
    def from_saved(self, state: TrainState) -> TrainState:
        return parallel.to_local(state, AXES)

    @override
    def whole(self, tree: Any) -> Any:
        return tree


class Scattered(Placement):
    """Each device has a part of every large array: weights, optimiser state, average, rows.

    A step gathers the weights once, for all passes of its attack, and updates them in parts.
    """

    @override
    def put(self, state: TrainState) -> TrainState:
        return parallel.scatter(state, AXES)

    @override
    def run(
        self,
        function: Callable,
        in_axes: Any,
        out_axes: Any,
        devices: tuple[parallel.Device, ...] | None = None,
    ) -> Callable:
        return parallel.spread(function, in_axes, out_axes, 0, devices)

    @override
    def step(
        self, function: Callable, devices: tuple[parallel.Device, ...] | None = None
    ) -> Callable:
        def run(state, *rest):
            params = parallel.hold(state.params, False, devices)
            new, metrics = function(state.replace(params=params), *rest)
            shared = new.replace(slot=())
            return parallel.hold(shared, True, devices).replace(slot=new.slot), metrics

        return run

    @override
    def shapes(
        self, state: TrainState, rest: Any, axes: Any, devices: tuple[parallel.Device, ...]
    ) -> tuple[TrainState, Any]:
        return (
            parallel.shapes(state, AXES, devices, parts=True),
            parallel.shapes(rest, axes, devices, parts=False),
        )

    @override
    def to_save(self, state: TrainState) -> TrainState:
        return state

    @override
    def from_saved(self, state: TrainState) -> TrainState:
        return state

    @override
    def whole(self, tree: Any) -> Any:
        return parallel.whole(tree)


REPLICATED, SCATTERED = Replicated(), Scattered()
