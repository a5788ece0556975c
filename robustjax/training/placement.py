"""Where the state of a run lives: whole on every device, or in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax

from robustjax import parallel
from robustjax.training.state import AXES, TrainState


class Placement(Protocol):
    """Where a state lives. Objects are compared, since programs are cached by them."""

    def put(self, state: TrainState) -> TrainState:
        """A new state, equal in every process, where it will live."""
        ...

    def run(self, function: Callable, in_axes: Any, out_axes: Any) -> Callable:
        """A function of one device, (state, ...) -> (state, ...), on all of them; it reuses the
        memory of the state."""
        ...

    def to_save(self, state: TrainState) -> TrainState:
        """The same as global arrays, for checkpoints."""
        ...

    def from_saved(self, state: TrainState) -> TrainState:
        """The inverse of `to_save`."""
        ...

    def whole(self, tree: Any) -> Any:
        """A part of a state, such as its variables, on every device."""
        ...


class Replicated:
    """The state is whole on every device; its slot is split."""

    def put(self, state: TrainState) -> TrainState:  # noqa: D102
        own = slice(*(jax.local_device_count() * (jax.process_index() + i) for i in (0, 1)))
        return parallel.place(state.replace(slot=jax.tree.map(lambda a: a[own], state.slot)), AXES)

    def run(self, function: Callable, in_axes: Any, out_axes: Any) -> Callable:  # noqa: D102
        return parallel.data_parallel(function, in_axes, out_axes, donate_argnums=0)

    def to_save(self, state: TrainState) -> TrainState:  # noqa: D102
        return parallel.to_global(state, AXES)

    def from_saved(self, state: TrainState) -> TrainState:  # noqa: D102
        return parallel.to_local(state, AXES)

    def whole(self, tree: Any) -> Any:  # noqa: D102
        return tree


class Scattered:
    """Each device has a part of every large array: weights, optimiser state, average, rows."""

    def put(self, state: TrainState) -> TrainState:  # noqa: D102
        return parallel.scatter(state, AXES)

    def run(self, function: Callable, in_axes: Any, out_axes: Any) -> Callable:  # noqa: D102
        return parallel.spread(function, in_axes, out_axes, donate_argnums=0)

    def to_save(self, state: TrainState) -> TrainState:  # noqa: D102
        return state

    def from_saved(self, state: TrainState) -> TrainState:  # noqa: D102
        return state

    def whole(self, tree: Any) -> Any:  # noqa: D102
        return parallel.whole(tree)


REPLICATED, SCATTERED = Replicated(), Scattered()
