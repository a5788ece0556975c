"""The programs of a training run, from shapes alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from robustjax import data, models, parallel
from robustjax.data import resident
from robustjax.scale.flops import Flops, count
from robustjax.scale.program import Program, compiled, usable_memory
from robustjax.scale.topology import Slice
from robustjax.training.identity import required_model
from robustjax.training.loop import batches
from robustjax.training.methods.base import Method
from robustjax.training.placement import REPLICATED, SCATTERED
from robustjax.training.recipes import Recipe
from robustjax.training.spans import residence, span_program
from robustjax.training.state import TrainState
from robustjax.training.step import IN_AXES, OUT_AXES, create_state, make_step, program


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What `training.fit` would train, and on which devices.

    Args:
      method, recipe, shard_state: see `training.fit`; so are `model`, `train` and `extra`, of which
        only shapes matter.
      where: the devices.

    Raises:
      ValueError: the batch cannot be split evenly over the devices.

    >>> digits = rj.data.load("digits", "train")
    >>> method, recipe = rj.training.PGDAT(), rj.training.Recipe()
    >>> job = Job(method, recipe, "cnn", digits, rj.scale.slice_of(None))
    >>> job.per_device * len(job.where.devices), job.steps_per_epoch
    (128, 10)
    """

    method: Method
    recipe: Recipe
    model: Mapping[str, Any] | str | Any
    train: data.Dataset
    where: Slice
    extra: data.Dataset | None = None
    shard_state: bool = False

    def __post_init__(self):
        n = len(self.where.devices) * self.recipe.accumulate
        if self.recipe.batch_size % n:
            raise ValueError(
                f"batch size {self.recipe.batch_size} must be a multiple of devices x accumulate = "
                f"{len(self.where.devices)} x {self.recipe.accumulate}"
            )

    @property
    def per_device(self) -> int:
        """The examples of a batch on one device."""
        return self.recipe.batch_size // len(self.where.devices)

    @property
    def batches(self) -> data.Plan:
        """The batches of the run."""
        return batches(self.train, self.recipe, 0, self.extra)

    @property
    def steps_per_epoch(self) -> int:
        """As in the run."""
        return self.batches.steps_per_epoch

    @property
    def module(self) -> models.Network:
        """The network."""
        given = self.model if isinstance(self.model, Mapping) else {"name": self.model}
        model = self.model if not isinstance(self.model, Mapping | str) else given
        return models.network(required_model(model, self.method), self.train.num_classes)

    def state(self) -> TrainState:
        """The shapes of the state."""
        t, devices = self.train, len(self.where.devices)
        about = t.images, t.labels, t.num_classes, devices
        return jax.eval_shape(
            lambda key: create_state(self.module, self.method, self.recipe, key, *about),
            key_shape(),
        )

    def batch(self) -> Any:
        """The shapes of a batch, split over the devices."""
        split = parallel.split(self.batches.batch(0, 0, 1), len(self.where.devices))
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), split)

    @property
    def available(self) -> float | None:
        """The bytes that a program may use on a device; None where the chip is unknown."""
        where = self.where
        return None if where.chip is None else usable_memory(where.devices, where.chip)

    @functools.cached_property
    def residence(self) -> resident.Layout:
        """Where the run would keep its examples."""
        memory = parallel.device_memory() if self.available is None else self.available
        variables = self.state().variables
        return residence(self.module, variables, self.batches, memory, self.where.devices)

    @property
    def held(self) -> int:
        """The bytes of the examples that live on a device."""
        if self.residence == "streamed":
            return 0
        size = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(self._tables))
        return size // len(self.where.devices) if self.residence == "sharded" else size

    @property
    def _tables(self) -> Any:
        return resident.shapes(self.batches, self.residence == "sharded", len(self.where.devices))

    def compile(self) -> Program:
        """Compile the program that the run would call, for one step of it.

        Raises:
          DoesNotFit: the compiler says that the devices have too little memory.
        """
        total, devices = self.recipe.epochs * self.steps_per_epoch, self.where.devices
        home = SCATTERED if self.shard_state else REPLICATED
        about = self.module, total, self.train.num_classes
        if self.residence == "streamed":
            call, held, axes = program(*about, home, devices), (self.batch(),), (0,)
        else:
            sharded = self.residence == "sharded"
            call = span_program(*about, self.train.image_shape, sharded, home, devices)
            rows = len(devices), self.steps_per_epoch, self.per_device
            order = jax.ShapeDtypeStruct(rows, np.int32)
            held = self._tables, order, np.int32(0), np.int32(1)
            axes = 0 if sharded else None, 0, None, None
        rest = self.method, self.recipe, key_shape(), *held
        state, rest = home.shapes(self.state(), rest, (None, None, None, *axes), devices)
        return compiled(call, (state, *rest))

    def flops(self) -> Flops:
        """What one device computes in a step."""
        total = self.recipe.epochs * self.steps_per_epoch
        step = make_step(self.module, self.recipe, total, self.train.num_classes)
        axes = (IN_AXES[0], *IN_AXES[2:])
        on_all = parallel.data_parallel(
            lambda state, key, batch: step(state, self.method, key, batch),  # numbers, not tracers
            axes,
            OUT_AXES,
            devices=self.where.devices,
        )
        return count(jax.make_jaxpr(on_all)(self.state(), key_shape(), self.batch()))


def key_shape() -> Any:
    """The shape of a run's key.

    >>> key_shape().shape
    ()
    """
    return jax.eval_shape(lambda: jax.random.key(0))
