"""What all stages of one run share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from robustjax import parallel
from robustjax.attacks._core.randomized import Randomized
from robustjax.attacks._core.success import Success
from robustjax.attacks._engine.ledger import Ledger

DRAWS = 20
"""The draws of a verdict on a randomised model, unless the caller says."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """The arguments that all stages of one run share: see `perturb`, and for `vote` `evaluate`."""

    model: Callable
    key: jax.Array
    success: Success
    batch_size: int | None
    ledger: Ledger
    draws: int | None = None
    vote: bool = False
    surrogate: Callable | None = None

    @property
    def crafted_on(self) -> Callable:
        """The model that attacks see; the other one judges what they find."""
        return self.model if self.surrogate is None else self.surrogate


def check_draws(draws: int | None, model: Callable) -> int | None:
    """Raise ValueError unless the model draws, and is to draw so often, in every process."""
    parallel.check_same({"draws": draws})
    if draws is None:
        return None
    if not isinstance(draws, int | np.integer) or isinstance(draws, bool) or draws < 1:
        raise ValueError(f"draws must be an integer of at least 1, got {draws!r}")
    if not isinstance(model, Randomized):
        raise ValueError(
            "the model has no key to draw with: give attacks.Randomized(function), of a key and "
            "images, or leave out draws and vote"
        )
    return draws


def verdict_draws(setting: Setting) -> int:
    """The draws of a verdict: as many as the setting says, 1 for a model that does not draw."""
    return (setting.draws or DRAWS) if isinstance(setting.model, Randomized) else 1
