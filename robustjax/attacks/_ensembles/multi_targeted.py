"""One attack towards several classes in turn."""

from __future__ import annotations

from typing_extensions import override

from robustjax.attacks._core.ensemble import Ensemble, WorstOf, replace
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._gradient.pgd import LINF, PGD
from robustjax.attacks.targets import Ranked
from robustjax.config import config, static
from robustjax.losses import targeted_margin
from robustjax.typing import Attack, Threat


@config
class MultiTargeted(Ensemble):
    """One attack towards each of the n most likely wrong classes of the clean image.

    The attack has the field `target`, such as `PGD` (Gowal et al. 2019), `APGD` and `FAB`; the
    ranks are data of one program. A model of K classes has K - 1 of them at most. Towards a class
    that the caller gives, the attack runs once.
    """

    attack: Attack
    n: int = static(default=9)
    success: Success = static(default=fooled)

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")

    def stages(self, num_classes: int) -> tuple[Attack, ...]:
        """The attack at ranks 1 to min(n, K - 1)."""
        ranks = range(1, min(self.n, num_classes - 1) + 1)
        return tuple(replace(self.attack, target=Ranked(r)) for r in ranks)

    @override
    def given(self) -> Ensemble:
        return WorstOf((self.attack,), self.success)


def MultiTargetedPGD(threat: Threat = LINF, steps: int = 20, n: int = 9) -> MultiTargeted:
    """PGD on z_t - z_y for each of the n most likely wrong classes t (Gowal et al. 2019)."""
    return MultiTargeted(PGD(threat, steps=steps, loss=targeted_margin, target=Ranked()), n)
