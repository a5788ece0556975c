"""What the stages of a run have done, and the NaN that they have met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from robustjax.attacks._engine.slots import NOTHING, SnapshotStore
from robustjax.typing import Attack, Cost
from robustjax.warn import warn


class Stage(NamedTuple):
    """Record of one attack of an ensemble; a plain attack counts as one stage.

    Attributes:
      attack: its configuration.
      path: its place, stage of stage of the ensemble; () for a plain attack.
      attacked: the number of examples left for it.
      succeeded: the number of those on which it won, inside its threat model.
      unfinished: the number on which it did not win but was still gaining when it ended.
      broken: the number on which it did not win and met NaN.
      unmoved: the number on which it did not win and returned the clean image.
      cost: model calls of all of them together; -1 where the attack does not say.
      seconds: wall time.
      differed: the number on which the surrogate and the model disagree; None without a surrogate.
    """

    attack: Attack
    path: tuple[int, ...]
    attacked: int
    succeeded: int
    unfinished: int
    broken: int
    unmoved: int
    cost: Cost
    seconds: float
    differed: int | None = None


class Ledger:
    """The stages that `craft` has run. A subclass may keep snapshots on disk."""

    def __init__(self) -> None:
        """No stages yet."""
        self.stages: list[Stage] = []

    def store(self, path: tuple[int, ...]) -> SnapshotStore:
        """The store for snapshots of the stage at `path`."""
        return NOTHING


def nan_in(attack: Attack, share: float) -> Iterator[str]:
    """A sentence if an attack met NaN at this part of the images that resist it."""
    if share:
        yield (
            f"the loss of {type(attack).__name__} or its gradient is NaN or infinite at "
            f"{share:.1%} of the images that resist it, so it finds nothing there, which is no "
            "robustness: look for numbers that overflow, and for a root, a logarithm or a quotient "
            "at 0, also in the branch of a jnp.where that is not taken"
        )


def warn_of_nan(ledger: Ledger) -> None:
    """A warning for each sentence of `met_nan`, at the caller of our caller."""
    for text in met_nan(ledger.stages):
        warn(text)


def met_nan(stages: Sequence[Stage]) -> Iterator[str]:
    """One sentence for each kind of attack that met NaN, about the stage that met most."""
    worst: dict[type, tuple[float, Attack]] = {}
    for stage in stages:
        share = stage.broken / max(stage.attacked - stage.succeeded, 1)
        if share > worst.get(type(stage.attack), (0.0, None))[0]:
            worst[type(stage.attack)] = share, stage.attack
    for share, attack in worst.values():
        yield from nan_in(attack, share)
