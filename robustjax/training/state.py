"""Everything that changes during training, in one pytree. Saving it suffices to resume exactly."""

from __future__ import annotations

from typing import Any

import jax
from flax import struct


class TrainState(struct.PyTreeNode):
    """The state of a run.

    Attributes:
      step: () int32, number of training steps done.
      updates: () int32, number of optimiser steps done (Free does several per training step).
      bad_step: () int32, the first step whose loss or gradient was not finite, or -1. The state is
        frozen from then on, so the last good weights survive donation.
      params: weights.
      stats: the other variable collections (`batch_stats`, `centers`).
      opt_state: the optimiser's state.
      ema: moving average of `params`, or ().
      rows: state per training example, leading axis N, the same on all devices.
      slot: state per batch position, leading axes (devices, B / devices).
      frozen: constants of the method, such as a helper network, or ().

    >>> zero = jnp.int32(0)
    >>> state = TrainState(zero, zero, zero - 1, params={"w": 1.0}, stats={}, opt_state=())
    >>> state.replace(ema={"w": 0.5}).weights
    {'w': 0.5}
    """

    step: jax.Array
    updates: jax.Array
    bad_step: jax.Array
    params: Any
    stats: Any
    opt_state: Any
    ema: Any = ()
    rows: Any = ()
    slot: Any = ()
    frozen: Any = ()

    @property
    def weights(self) -> Any:
        """The weights to evaluate: the moving average if there is one."""
        return self.params if self.ema == () else self.ema

    @property
    def variables(self) -> dict[str, Any]:
        """The variables to evaluate, as Flax takes them (statistics are never averaged)."""
        return {"params": self.weights, **self.stats}


_ALIKE: Any = None

AXES = TrainState(*[_ALIKE] * 8, slot=0, frozen=_ALIKE)
"""The device axes of a state: the slot is split over devices, all else is replicated."""
