"""Attacks by the names of the command line: 'fgsm', 'pgd-40', 'pgd-40x10', 'autoattack'."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from robustjax.attacks._black_box.gaussian_noise import GaussianNoise
from robustjax.attacks._black_box.hop_skip_jump import HopSkipJump
from robustjax.attacks._black_box.spatial import Spatial
from robustjax.attacks._black_box.square import Square
from robustjax.attacks._black_box.zeroth_order import NES, SPSA
from robustjax.attacks._core.ensemble import MultiTargeted, Restarts
from robustjax.attacks._ensembles.adaptive import OBJECTIVES, Adaptive
from robustjax.attacks._ensembles.autoattack import AutoAttack
from robustjax.attacks._gradient.apgd import APGD
from robustjax.attacks._gradient.pgd import (
    BIM,
    DIM,
    FGSM,
    ILCM,
    MIFGSM,
    NIFGSM,
    PGD,
    RFGSM,
    SINIFGSM,
    TIM,
)
from robustjax.attacks._minimum_norm.carlini_wagner import CarliniWagnerL2, CarliniWagnerLinf
from robustjax.attacks._minimum_norm.ddn import DDN
from robustjax.attacks._minimum_norm.deepfool import DeepFool
from robustjax.attacks._minimum_norm.ead import EAD
from robustjax.attacks._minimum_norm.fab import FAB
from robustjax.attacks._minimum_norm.fmn import FMN
from robustjax.attacks._minimum_norm.jsma import JSMA
from robustjax.attacks.starts import OutputDiversified
from robustjax.losses import dlr, targeted_dlr
from robustjax.threats import L0, L1, L2, Linf
from robustjax.typing import Attack, Threat

ALL = (Linf, L2, L1, L0)
DENSE = (Linf, L2, L1)


class Row(NamedTuple):
    """How a name becomes an attack.

    Attributes:
      make: (threat, and the budget by its name) -> attack.
      budget: what the number behind the name sets; None: the attack takes none.
      threats: those it is defined for.
      restarts: whether `make` takes their number itself.
    """

    make: Callable[..., Attack]
    budget: str | None = "steps"
    threats: tuple[type, ...] = ALL
    restarts: bool = False


def _targeted(attack: Callable, **fields: Any) -> Callable:
    return lambda threat, **budget: MultiTargeted(attack(threat, **fields, **budget))


def _apgd(threat: Threat, **fields: Any) -> Attack:
    """With larger radii first in L1, as in AutoAttack."""
    return APGD(threat, larger_radii=isinstance(threat, L1), **fields)


def _carlini_wagner(threat: Threat, **fields: Any) -> Attack:
    return (CarliniWagnerLinf if isinstance(threat, Linf) else CarliniWagnerL2)(threat, **fields)


def _anywhere(attack: Callable) -> Callable:
    """An attack that knows no ball."""
    return lambda threat, **budget: attack(**budget)


ROWS = {
    "fgsm": Row(FGSM, None),
    "r-fgsm": Row(RFGSM, None),
    "bim": Row(BIM),
    "ilcm": Row(ILCM),
    "mi-fgsm": Row(MIFGSM),
    "ni-fgsm": Row(NIFGSM),
    "si-ni-fgsm": Row(SINIFGSM),
    "dim": Row(DIM),
    "tim": Row(TIM),
    "pgd-odi": Row(partial(PGD, start=OutputDiversified())),
    **{name: Row(make) for name, make in OBJECTIVES.items()},
    "adaptive": Row(Adaptive, restarts=True),
    "apgd-ce": Row(_apgd, threats=DENSE),
    "apgd-dlr": Row(partial(_apgd, loss=dlr), threats=DENSE),
    "apgd-t": Row(_targeted(_apgd, loss=targeted_dlr), threats=DENSE),
    "fab": Row(FAB, threats=DENSE),
    "fab-t": Row(_targeted(FAB), threats=DENSE),
    "square": Row(Square, "queries", DENSE),
    "autoattack": Row(AutoAttack, threats=DENSE),
    "autoattack-plus": Row(partial(AutoAttack, version="plus"), threats=DENSE),
    "autoattack-rand": Row(partial(AutoAttack, version="rand"), threats=DENSE),
    "deepfool": Row(DeepFool, threats=(Linf, L2)),
    "ddn": Row(DDN, threats=(L2,)),
    "fmn": Row(FMN),
    "cw": Row(_carlini_wagner, threats=(L2, Linf)),
    "cw-hc": Row(partial(_carlini_wagner, confidence=10.0), threats=(L2, Linf)),
    "ead": Row(EAD, threats=(L1, L2)),
    "jsma": Row(JSMA, None, (L0,)),
    "spsa": Row(SPSA),
    "nes": Row(NES),
    "hop-skip-jump": Row(HopSkipJump, "queries", (Linf, L2)),
    "spatial": Row(_anywhere(Spatial), None),
    "gaussian-noise": Row(_anywhere(GaussianNoise), "draws"),
}


def names() -> tuple[str, ...]:
    """What `parse` knows."""
    return tuple(ROWS)


def parse(text: str, threat: Threat) -> Attack:
    """An attack from its name: NAME, NAME-BUDGET, NAME-BUDGETxRESTARTS or NAME-xRESTARTS.

    The budget is the number of steps; of 'square' and 'hop-skip-jump' that of queries.

    Raises:
      ValueError: an unknown name, a number for an attack that takes none, or a threat that the
        attack is not defined for.
    """
    word = r"[a-z]+\d*"
    pattern = rf"({word}(?:-{word})*?)(?:-(?=[\dx])(\d+)?(?:x(\d+))?)?"
    match = re.fullmatch(pattern, text.strip().lower())
    name, budget, restarts = match.groups() if match else (text, None, None)
    if name not in ROWS:
        raise ValueError(
            f"unknown attack {text!r}; known: {', '.join(names())}, with steps and restarts as in "
            "pgd-40 or pgd-40x10"
        )
    row = ROWS[name]
    if budget and row.budget is None:
        raise ValueError(f"{name} takes no number of steps; write {name!r}, not {text!r}")
    if not isinstance(threat, row.threats):
        defined = ", ".join(kind.__name__ for kind in row.threats)
        raise ValueError(f"{name} is defined for {defined}, not for {type(threat).__name__}")
    numbers = {row.budget: int(budget)} if budget else {}
    if restarts and row.restarts:
        return row.make(threat, **numbers, restarts=int(restarts))
    attack = row.make(threat, **numbers)
    return Restarts(attack, int(restarts)) if restarts else attack
