"""How long an evaluation takes in all, from the first attack that takes long."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jax import monitoring

from robustjax import progress
from robustjax.attacks._core.ensemble import Ensemble, stages_of
from robustjax.cli.narration import COMPILED
from robustjax.scale.evaluation import cost
from robustjax.typing import Attack

PATIENCE = 30.0
"""Seconds that an attack takes before there is an estimate, which itself takes a few to compile."""


class Estimate:
    """Says once how long the attacks that are left take at most, compilations apart.

    >>> estimate = Estimate(lambda: {"pgd-20": 60.0, "pgd-40": 120.0})
    >>> estimate.left(progress.Work("pgd-20", images=100, passes=6e3, seconds=50.0), seconds=30.0)
    60.0
    """

    def __init__(self, costs: Callable[[], Mapping[str, float]]):
        """Keep the function that returns what an image costs under each title, in order."""
        self._costs, self._said = costs, False
        self._compiled: list[tuple[float, float]] = []  # when, and how long it took

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Listen to JAX's compilations and to the attacks."""
        monitoring.register_event_duration_secs_listener(self._hear)
        try:
            with progress.heard(self._finished):
                yield
        finally:
            monitoring.unregister_event_duration_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        if event == COMPILED:
            self._compiled.append((time.monotonic(), duration_secs))

    def _finished(self, work: progress.Work) -> None:
        begun = time.monotonic() - work.seconds
        seconds = work.seconds - sum(took for when, took in self._compiled if when > begun)
        if self._said or seconds < PATIENCE or not progress.is_told():
            return
        self._said = True
        progress.bar("the time that is left", disable=True)  # what is then compiled has this name
        if left := self.left(work, seconds):
            progress.tell(f"the attacks that are left take at most about {duration(left)}")

    def left(self, work: progress.Work, seconds: float) -> float:
        """Seconds of the attacks after this one, if each of its images resists them all.

        Args:
          work: which attack, and its passes.
          seconds: of it without compilations.
        """
        costs = self._costs()
        after = list(costs)[list(costs).index(work.title) + 1 :] if work.title in costs else []
        passes = work.images * sum(costs[title] for title in after)
        return passes * seconds / work.passes if work.passes else 0.0


def costs(
    attacks: Mapping[str, Attack], image_shape: Sequence[int], classes: int
) -> dict[str, float]:
    """What an image that resists costs under the title of each bar: forwards + 2 backwards.

    >>> costs({"pgd-7": rj.attacks.PGD(steps=7)}, (4, 4, 1), 10)
    {'pgd-7': 21.0}
    """
    found = (_passes(attack, title, image_shape, classes) for title, attack in attacks.items())
    return dict(itertools.chain.from_iterable(found))


def _passes(
    attack: Attack, title: str, image_shape: Sequence[int], classes: int
) -> Iterator[tuple[str, float]]:
    if isinstance(attack, Ensemble):
        stages = stages_of(attack, classes, None)
        for i, stage in enumerate(stages, 1):
            yield from _passes(stage, f"{title} {i}/{len(stages)}", image_shape, classes)
    else:
        spent = cost(attack, image_shape, classes)
        yield title, float(max(spent.forwards + 2 * spent.backwards, 0))


def duration(seconds: float) -> str:
    """Seconds as one says them.

    >>> [duration(s) for s in (42, 600, 9000)]
    ['42 s', '10 min', '2.5 h']
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
