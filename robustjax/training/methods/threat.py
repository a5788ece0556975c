"""The threat that a method trains against."""

from __future__ import annotations

from robustjax.checks import checked
from robustjax.threats import Linf
from robustjax.threats._trees import map_threats, threats_of
from robustjax.training.methods.base import Method
from robustjax.typing import Threat


@checked
def threat_of(method: Method) -> Threat:
    """The threat that a method trains against; Linf(8/255) if it has none.

    >>> pgd = rj.attacks.PGD(rj.threats.L2(0.5))
    >>> threat_of(rj.training.TRADES(attack=pgd)).eps
    0.5
    """
    return next(iter(threats_of(method)), Linf())


@checked
def with_threat(method: Method, threat: Threat) -> Method:
    """A copy of a method that trains against another threat.

    >>> with_threat(rj.training.PGDAT(), rj.threats.L2(0.5)).attack.threat.eps
    0.5
    """
    return map_threats(lambda _: threat, method)
