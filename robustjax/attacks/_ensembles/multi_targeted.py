"""One attack towards several classes in turn."""

from __future__ import annotations

from typing_extensions import override

from robustjax.attacks._core.ensemble import Ensemble, WorstOf, replace
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._gradient.pgd import LINF, PGD
from robustjax.attacks.targets import Ranked
from robustjax.checks import checked
from robustjax.config import config, static
from robustjax.losses import targeted_margin
from robustjax.typing import Attack, Threat


@config
class MultiTargeted(Ensemble):
    """One attack towards each of the n most likely wrong classes of the clean image.

    The attack has the field `target`, such as `PGD` (Gowal et al. 2019), `APGD` and `FAB`; the
    ranks are data of one program. With K classes there are at most K - 1. Where the caller gives a
    class, the attack runs once, towards that class.

    The second most likely class is out of reach, but the third is not, as its logit grows faster:

    >>> def logits_fn(x):
    ...     return jnp.ravel(x) * jnp.array([1.0, 1.0, 4.0]) - jnp.array([0.0, 0.0, 0.75])
    >>> x = jnp.array([[[0.75], [0.375], [0.25]]])
    >>> attack = rj.attacks.MultiTargeted(rj.attacks.FGSM(rj.threats.Linf(0.125)))
    >>> attack = jax.jit(attack, static_argnums=0)  # the model
    >>> print(jnp.ravel(attack(logits_fn, jax.random.key(0), x, 0)))
    [0.625 0.25  0.375]
    """

    attack: Attack
    n: int = static(default=9)
    success: Success = static(default=fooled)

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")

    @override
    def stages(self, num_classes: int) -> tuple[Attack, ...]:
        if num_classes < 2:
            raise ValueError(
                "MultiTargeted goes to classes, and the model returns no logits (B, K)"
            )
        ranks = range(1, min(self.n, num_classes - 1) + 1)
        return tuple(replace(self.attack, target=Ranked(r)) for r in ranks)

    @override
    def given(self) -> Ensemble:
        return WorstOf((self.attack,), self.success)


@checked
def MultiTargetedPGD(threat: Threat = LINF, steps: int = 20, n: int = 9) -> MultiTargeted:
    """PGD on z_t - z_y for each of the n most likely wrong classes t (Gowal et al. 2019).

    >>> attack = rj.attacks.MultiTargetedPGD(n=2)
    >>> [stage.target for stage in attack.stages(num_classes=10)]
    [Ranked(rank=1), Ranked(rank=2)]
    """
    return MultiTargeted(PGD(threat, steps=steps, loss=targeted_margin, target=Ranked()), n)
