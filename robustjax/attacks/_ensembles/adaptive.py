"""Attacks on a head of distances to class centers, whose softmax hides its gradient.

Such a head has the logits h_i = -||z - mu_i||^2 / 2. At one of ten centers of norm 10 the others
are 111 lower, the softmax is one-hot in float32, the gradient of the cross-entropy exactly zero,
and sign(0) = 0: PGD on the cross-entropy does not move, and its accuracy says nothing about
robustness. The objectives below read the distances; as losses of the logits they suit any attack.
With y the label, k the nearest wrong class and t any wrong class:

    name               ascends                  gradient in the features z
    margin-un          h_k - h_y                mu_k - mu_y, never zero (a mean if tied)
    pgd-mt             h_t - h_y, every t       mu_t - mu_y
    own-un1            h_k                      mu_k - z
    own-tar            h_t, every t             mu_t - z
    own-un             -h_y                     z - mu_y: zero at the center, and beyond it the way
                                                out, away from every other class
    pgd, ce-t10, -t100 the cross-entropy of h / T, T = 1, 10, 100

For centers of one norm the margins are linear in z.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from robustjax.attacks._core.ensemble import Restarts, WorstOf
from robustjax.attacks._ensembles.multi_targeted import MultiTargeted, MultiTargetedPGD
from robustjax.attacks._gradient.pgd import LINF, PGD
from robustjax.attacks.targets import Prediction, Random, Ranked
from robustjax.checks import INF, checked
from robustjax.losses import TemperedCrossEntropy, best_wrong, margin, mmc
from robustjax.threats import Linf
from robustjax.typing import Attack, Loss, Threat


def OwnTargetedPGD(threat: Threat = LINF, steps: int = 10, n: int = 9) -> MultiTargeted:
    """PGD towards the center of each of the n nearest wrong classes."""
    return MultiTargeted(PGD(threat, steps=steps, loss=mmc, target=Ranked()), n)


OBJECTIVES: dict[str, Callable[..., Attack]] = {
    "margin-un": partial(PGD, loss=margin),
    "pgd-mt": MultiTargetedPGD,
    "own-un1": partial(PGD, loss=best_wrong),
    "own-tar": OwnTargetedPGD,
    "own-un": partial(PGD, loss=mmc),
    "pgd": PGD,
    "ce-t10": partial(PGD, loss=TemperedCrossEntropy(10.0)),
    "ce-t100": partial(PGD, loss=TemperedCrossEntropy(100.0)),
}
"""(threat, steps=) -> an attack, by name; the strongest first, to leave the others less work."""


@checked
def distance_head_attacks(
    threat: Threat = LINF, steps: int = 100, restarts: int = 5
) -> dict[str, Attack]:
    """Every objective of `OBJECTIVES` by name, each with `restarts` random starts.

    Args:
      threat: the ball.
      steps: of each ascent; one step is 2.5 eps / steps long.
      restarts: of each attack; each restart of a targeted attack goes to all its targets.

    References:
      Pang et al., "Rethinking softmax cross-entropy loss", 2020: own-un and own-tar.
      Tramer et al., "On adaptive attacks to adversarial example defenses", 2020: why the others.

    >>> list(rj.attacks.distance_head_attacks())[:5]
    ['margin-un', 'pgd-mt', 'own-un1', 'own-tar', 'own-un']
    """
    return {
        name: Restarts(make(threat, steps=steps), restarts) for name, make in OBJECTIVES.items()
    }


@checked
def Adaptive(threat: Threat = LINF, steps: int = 100, restarts: int = 5) -> WorstOf:
    """The attacks of `distance_head_attacks` in turn, each on the images that still resist.

    Guarantees:
      Where the features are linear in the pixels, and there are at most ten centers, of one norm,
      an image that resists it in Linf has no adversarial image in the ball.

    >>> attack = rj.attacks.Adaptive(rj.threats.Linf(8 / 255), restarts=5)
    >>> [stage.n for stage in attack.stages(num_classes=10)]
    [5, 5, 5, 5, 5, 5, 5, 5]
    """
    return WorstOf(tuple(distance_head_attacks(threat, steps, restarts).values()))


@checked(eps=(0, INF))
def mmc_paper_attacks(eps: float, loss: Loss = mmc) -> dict[str, PGD]:
    """The white-box columns of Pang et al. (2020) at one radius: PGD of 10 and 50 steps.

    A step is 2/256 long at either radius, and the start is uniform. Targeted: one random wrong
    class per image, under one key the same in every column and at every radius. Untargeted: away
    from the model's own prediction. Any wrong prediction is a success of a targeted attack too.

    10 such steps are weak at eps = 16/256: they reach the far face from 62 % of the starts only.
    `evaluate` does not attack misclassified images; the original evaluation pushed them away from
    their wrong class, sometimes to the right one, so its untargeted accuracies are a little higher.

    Args:
      eps: of the Linf ball; the paper has 8/256 and 16/256.
      loss: the training loss: `mmc` for MMC, `cross_entropy` for softmax losses, over distances
        too.

    >>> list(rj.attacks.mmc_paper_attacks(8 / 256))
    ['pgd-10-tar', 'pgd-10-un', 'pgd-50-tar', 'pgd-50-un']
    """
    pgd = partial(PGD, Linf(eps), step_size=2 / 256, loss=loss)
    return {
        f"pgd-{steps}-{kind}": pgd(steps=steps, target=target)
        for steps in (10, 50)
        for kind, target in (("tar", Random()), ("un", Prediction()))
    }
