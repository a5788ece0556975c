"""Close to AutoAttack's verdict, with about a tenth of its model calls."""

from __future__ import annotations

from typing_extensions import override

from robustjax.attacks._black_box.patient_square import PatientSquare
from robustjax.attacks._core.ensemble import Ensemble
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._gradient.adaptive_restarts import AdaptiveRestarts
from robustjax.config import config, number, static
from robustjax.threats import L2, Linf
from robustjax.threats._trees import check_norm
from robustjax.typing import Attack, Threat


@config
class FastAutoAttack(Ensemble):
    """`AdaptiveRestarts`, then `PatientSquare` on what is left: the budget goes where it may help.

    For model selection and ablations. A figure to publish is that of `AutoAttack(threat,
    first="fast")`, which runs these stages first and the standard ones on what is left. It can
    leave more images, most where the margins fall late: experiments/benchmarks/fast_autoattack.py.

    In L1 there is none: ascents need sparse steps of adaptive size there (`APGD`).

    Args:
      threat: the ball, of Linf or L2.
      runs: the most ascents of an image, of 20 steps each.
      queries: the most queries of an image.
      success: (output, label) -> bool.

    References:
      Liu et al., "Practical evaluation of adversarial robustness via adaptive auto attack", 2022.

    >>> attack = rj.attacks.FastAutoAttack(rj.threats.Linf(8 / 255))
    >>> [type(stage).__name__ for stage in attack.stages(num_classes=10)]
    ['AdaptiveRestarts', 'PatientSquare']
    """

    threat: Threat = Linf()
    runs: int = number(default=15, low=2)
    queries: int = number(default=5000, low=1)
    success: Success = static(default=fooled)

    def __post_init__(self):
        check_norm(self, Linf, L2)

    @override
    def stages(self, num_classes: int) -> tuple[Attack, ...]:
        return (
            AdaptiveRestarts(self.threat, runs=self.runs, success=self.success),
            PatientSquare(self.threat, self.queries, success=self.success),
        )
