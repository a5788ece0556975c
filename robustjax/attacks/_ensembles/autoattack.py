"""AutoAttack: the ensemble that the field reports (Croce & Hein 2020)."""

from __future__ import annotations

import dataclasses
from typing import Literal

from typing_extensions import override

from robustjax.attacks._black_box.square import Square
from robustjax.attacks._core.ensemble import Ensemble, Restarts
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._ensembles.fast_autoattack import FastAutoAttack
from robustjax.attacks._ensembles.multi_targeted import MultiTargeted
from robustjax.attacks._gradient.apgd import APGD
from robustjax.attacks._minimum_norm.fab import FAB
from robustjax.config import config, number, static
from robustjax.losses import dlr, targeted_dlr
from robustjax.threats import L1, L2, Linf
from robustjax.threats._trees import check_norm
from robustjax.typing import Attack, Threat

Version = Literal["standard", "plus", "rand"]


@config
class AutoAttack(Ensemble):
    """APGD, FAB and Square in turn, with no parameter to tune; each on what is left.

    'standard': APGD on the cross-entropy, APGD-T towards 9 classes, FAB-T towards 9 classes,
    Square. In L1 APGD uses larger radii first, on the cross-entropy with 5 restarts, towards 5
    classes. 'plus': APGD on the cross-entropy and on the DLR loss and FAB, with 5 restarts each,
    Square, APGD-T and FAB-T. 'rand', for models with randomness: APGD on the cross-entropy and on
    the DLR loss, with gradients that are means over 20 draws.

    Where a model has fewer wrong classes than that, all of them are tried; DLR is defined for two
    and three classes too (`losses.dlr`).

    Args:
      threat: the ball.
      version: 'standard', 'plus' or 'rand'.
      steps: of APGD and FAB.
      queries: of Square.
      first: 'fast' runs `FastAutoAttack` first, in Linf and L2; the stages above then meet only
        what resists it.
      success: (output, label) -> bool.

    Raises:
      ValueError: `first` with L1, or with 'rand': its models need means over draws at every step.

    References:
      Croce & Hein, "Reliable evaluation of adversarial robustness", 2020.
      Croce & Hein, "Mind the box: l1-APGD for sparse adversarial attacks", 2021 (L1).

    >>> attack = rj.attacks.AutoAttack(rj.threats.Linf(8 / 255))
    >>> [type(stage).__name__ for stage in attack.stages(num_classes=10)]
    ['APGD', 'MultiTargeted', 'MultiTargeted', 'Square']
    >>> type(rj.attacks.AutoAttack(first="fast").stages(num_classes=10)[0]).__name__
    'FastAutoAttack'
    """

    threat: Threat = Linf()
    version: Version = static(default="standard")
    steps: int = number(default=100)
    queries: int = number(default=5000)
    first: Literal["fast"] | None = static(default=None)
    success: Success = static(default=fooled)

    def __post_init__(self):
        check_norm(self, Linf, L2, L1)
        if self.first and (self.version == "rand" or isinstance(self.threat, L1)):
            raise ValueError(
                "first='fast' goes with 'standard' and 'plus', in Linf and L2: leave first at None"
            )

    @override
    def stages(self, num_classes: int) -> tuple[Attack, ...]:
        if self.first:
            return FastAutoAttack(self.threat, success=self.success), *self._stages()
        return self._stages()

    def _stages(self) -> tuple[Attack, ...]:
        if self.version == "rand":
            return self._apgd(eot=20), self._apgd(loss=dlr, eot=20)
        square = Square(self.threat, self.queries, success=self.success)
        fab = FAB(self.threat, self.steps, success=self.success)
        fab_t = self._towards(fab, 9)
        if self.version == "plus":
            return (
                self._restarts(self._apgd()),
                self._restarts(self._apgd(loss=dlr)),
                fab,
                Restarts(dataclasses.replace(fab, random_start=True), 4, self.success),
                square,
                self._towards(self._apgd(loss=targeted_dlr), 9),
                fab_t,
            )
        if isinstance(self.threat, L1):
            first = self._restarts(self._apgd(larger_radii=True))
            apgd_t = self._towards(self._apgd(loss=targeted_dlr, larger_radii=True), 5)
        else:
            first, apgd_t = self._apgd(), self._towards(self._apgd(loss=targeted_dlr), 9)
        return first, apgd_t, fab_t, square

    def _apgd(self, **fields) -> APGD:
        return APGD(self.threat, self.steps, success=self.success, **fields)

    def _restarts(self, attack: Attack) -> Restarts:
        return Restarts(attack, 5, self.success)

    def _towards(self, attack: Attack, classes: int) -> MultiTargeted:
        return MultiTargeted(attack, classes, self.success)
