"""Everything that changes while training, in one pytree: save it, and resume exactly."""

from __future__ import annotations

from typing import Any

import jax
from flax import struct


class TrainState(struct.PyTreeNode):
    """The state of a run.

    Attributes:
      step: () int32, training steps done.
      updates: () int32, optimiser steps done (Free takes several a training step).
      bad_step: () int32, the step whose loss or gradient was not finite, or -1. From there on the
        state is frozen, so the last good weights survive donation.
      params: weights.
      stats: the other variable collections (`batch_stats`, `centers`).
      opt_state: the optimiser's.
      ema: moving average of `params`, or ().
      rows: per-example state, leading axis N, the same on all devices.
      slot: state per batch position, leading axes (devices, B / devices).
      frozen: what no step changes, a helper network, or ().
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
        """What is evaluated: the moving average where there is one, else the weights."""
        return self.params if self.ema == () else self.ema

    @property
    def variables(self) -> dict[str, Any]:
        """The evaluated model's variables, as Flax takes them (statistics are never averaged)."""
        return {"params": self.weights, **self.stats}


_ALIKE: Any = None

AXES = TrainState(*[_ALIKE] * 8, slot=0, frozen=_ALIKE)
"""The device axes of a state: slot rows are spread, all else is replicated."""
