"""Attacks by name: 'fgsm', 'pgd-40x10', 'autoattack', 'apgd-ce:loss=dlr:steps=20'."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from robustjax import spec
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

ANY = (Threat,)
DENSE = (Linf, L2, L1)


class Row(NamedTuple):
    """How a name becomes an attack.

    Attributes:
      make: (threat, and the budget by its name) -> attack.
      budget: what the number behind the name sets; None: the attack takes none.
      threats: those it is defined for.
      restarts: whether `make` takes their number itself.
      paper: where it is from.
    """

    make: Callable[..., Attack]
    budget: str | None = "steps"
    threats: tuple[type, ...] = ANY
    restarts: bool = False
    paper: str = "-"


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


ATTACKS = spec.Names(
    "attack",
    {
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
    },
)
WORD = r"[a-z]+\d*"
"""Of a name; a number that follows a dash is the budget."""


def names() -> tuple[str, ...]:
    """The names that `parse` knows."""
    return tuple(ATTACKS)


def register(
    name: str,
    make: Callable[..., Attack],
    *,
    budget: str | None = "steps",
    threats: tuple[type, ...] = ANY,
    paper: str = "-",
) -> None:
    """Make an attack known by name, to `parse` and to the command line (`--import my_package`).

    Args:
      name: words of lower-case letters with dashes between them; digits may end a word.
      make: threat -> attack, such as a class whose first field is the threat.
      budget: what it calls the number behind the name, as in name-40; None: it takes none.
      threats: the classes it is defined for.
      paper: where it is from, for `robustjax attacks`.

    Raises:
      ValueError: robustjax has an attack of this name, or the name could be read as a number.
    """
    if not re.fullmatch(rf"{WORD}(-{WORD})*", name):
        raise ValueError(
            f"the name of an attack is made of words such as my-attack or fgsm2, got {name!r}: "
            "a number after a dash would be its steps"
        )
    ATTACKS.register(name, Row(make, budget, threats, paper=paper))


def parse(text: str, threat: Threat) -> Attack:
    """An attack from its name and settings: NAME[-BUDGET][xRESTARTS][:FIELD=VALUE ...].

    The budget is the number of steps; of 'square' and 'hop-skip-jump' that of queries. Settings are
    those of `robustjax.spec`, and of the attack itself where it is restarted.

    >>> parse("pgd-40:start=zero:stop=misclassified", Linf(0.1)).steps
    40
    >>> parse("apgd-ce-5x3:loss=dlr", Linf(0.1)).n
    3

    Raises:
      ValueError: an unknown name, a number for an attack that takes none, a threat that the attack
        is not defined for, or settings that it does not have.
    """
    head, settings = spec.split(text)
    match = re.fullmatch(rf"({WORD}(?:-{WORD})*?)(?:-(?=[\dx])(\d+)?(?:x(\d+))?)?", head.lower())
    name, budget, restarts = match.groups() if match else (head, None, None)
    row = ATTACKS.find(name)
    if budget and row.budget is None:
        raise ValueError(f"{name} takes no number of steps; write {name!r}, not {head!r}")
    if not isinstance(threat, row.threats):
        defined = ", ".join(kind.__name__ for kind in row.threats)
        raise ValueError(f"{name} is defined for {defined}, not for {type(threat).__name__}")
    numbers = {row.budget: int(budget)} if row.budget and budget else {}
    if 0 in numbers.values():
        raise ValueError(f"the number of {row.budget} in {head!r} must be at least 1")
    if clash := set(numbers) & {path for path, _ in settings}:
        raise ValueError(f"{text!r} gives {clash.pop()} twice")
    if restarts and row.restarts:
        numbers["restarts"] = int(restarts)
    attack = spec.change(row.make(threat, **numbers), settings, name)
    return Restarts(attack, int(restarts)) if restarts and not row.restarts else attack
