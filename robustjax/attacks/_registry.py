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
from robustjax.attacks._core.ensemble import Restarts
from robustjax.attacks._ensembles.adaptive import OBJECTIVES, Adaptive
from robustjax.attacks._ensembles.autoattack import AutoAttack
from robustjax.attacks._ensembles.fast_autoattack import FastAutoAttack
from robustjax.attacks._ensembles.multi_targeted import MultiTargeted
from robustjax.attacks._gradient.apgd import APGD
from robustjax.attacks._gradient.memetic import Memetic
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
from robustjax.checks import checked
from robustjax.losses import dlr, targeted_dlr
from robustjax.threats import L0, L1, L2, Linf
from robustjax.typing import Attack, Threat

ANY = (Threat,)
DENSE = (Linf, L2, L1)


class Row(NamedTuple):
    """The entry of a name.

    Attributes:
      make: (threat, and the budget by its name) -> attack.
      paper: the source.
      cost: the most passes over one image that a unit of the budget takes, with ten classes: F is a
        forward pass, B a backward pass, FB both. Without a budget: those of the whole attack.
      budget: the field that the number after the name sets; None: the name takes no number.
      threats: the classes of threats that it is defined for.
      restarts: whether `make` takes the number of restarts itself.
    """

    make: Callable[..., Attack]
    paper: str = "-"
    cost: str = "1 FB"
    budget: str | None = "steps"
    threats: tuple[type, ...] = ANY
    restarts: bool = False


def _targeted(attack: Callable, **fields: Any) -> Callable:
    return lambda threat, **budget: MultiTargeted(attack(threat, **fields, **budget))


def _apgd(threat: Threat, **fields: Any) -> Attack:
    """APGD, in L1 with larger radii first, as in AutoAttack."""
    return APGD(threat, larger_radii=isinstance(threat, L1), **fields)


def _carlini_wagner(threat: Any, **fields: Any) -> Attack:
    if isinstance(threat, Linf):
        return CarliniWagnerLinf(threat, **fields)
    return CarliniWagnerL2(threat, **fields)


def _anywhere(attack: Callable) -> Callable:
    """Make an attack without a ball."""
    return lambda threat, **budget: attack(**budget)


ATTACKS = spec.Names(
    "attack",
    {
        "fgsm": Row(FGSM, "Goodfellow et al. 2015", budget=None),
        "r-fgsm": Row(RFGSM, "Tramer et al. 2018", budget=None),
        "bim": Row(BIM, "Kurakin et al. 2017"),
        "ilcm": Row(ILCM, "Kurakin et al. 2017"),
        "mi-fgsm": Row(MIFGSM, "Dong et al. 2018"),
        "ni-fgsm": Row(NIFGSM, "Lin et al. 2020"),
        "si-ni-fgsm": Row(SINIFGSM, "Lin et al. 2020", "5 FB"),
        "dim": Row(DIM, "Xie et al. 2019"),
        "tim": Row(TIM, "Dong et al. 2019"),
        "pgd-odi": Row(partial(PGD, start=OutputDiversified()), "Tashiro et al. 2020"),
        "margin-un": Row(OBJECTIVES["margin-un"]),
        "pgd-mt": Row(OBJECTIVES["pgd-mt"], "Gowal et al. 2019", "9 FB"),
        "own-un1": Row(OBJECTIVES["own-un1"]),
        "own-tar": Row(OBJECTIVES["own-tar"], "Pang et al. 2020", "9 FB"),
        "own-un": Row(OBJECTIVES["own-un"], "Pang et al. 2020"),
        "pgd": Row(OBJECTIVES["pgd"], "Madry et al. 2018"),
        "ce-t10": Row(OBJECTIVES["ce-t10"]),
        "ce-t100": Row(OBJECTIVES["ce-t100"]),
        "adaptive": Row(Adaptive, "-", "120 FB", restarts=True),
        "apgd-ce": Row(_apgd, "Croce & Hein 2020", threats=DENSE),
        "apgd-dlr": Row(partial(_apgd, loss=dlr), "Croce & Hein 2020", threats=DENSE),
        "apgd-t": Row(
            _targeted(_apgd, loss=targeted_dlr), "Croce & Hein 2020", "9 FB", threats=DENSE
        ),
        "fab": Row(FAB, "Croce & Hein 2020", "1 F + 10 B", threats=DENSE),
        "fab-t": Row(_targeted(FAB), "Croce & Hein 2020", "9 FB", threats=DENSE),
        "square": Row(Square, "Andriushchenko et al. 2020", "1 F", budget="queries", threats=DENSE),
        "autoattack": Row(AutoAttack, "Croce & Hein 2020", "19 FB", threats=DENSE),
        "autoattack-plus": Row(
            partial(AutoAttack, version="plus"), "Croce & Hein 2020", "33 F + 78 B", threats=DENSE
        ),
        "autoattack-rand": Row(
            partial(AutoAttack, version="rand"), "Croce & Hein 2020", "2 FB", threats=DENSE
        ),
        "autoattack-fast": Row(
            FastAutoAttack, "Liu et al. 2022", "20 FB", budget="runs", threats=(Linf, L2)
        ),
        "memetic": Row(Memetic, "Moscato 1989", "20 FB", budget="ascents", threats=(Linf, L2)),
        "deepfool": Row(DeepFool, "Moosavi-Dezfooli et al. 2016", "1 F + 9 B", threats=(Linf, L2)),
        "ddn": Row(DDN, "Rony et al. 2019", threats=(L2,)),
        "fmn": Row(FMN, "Pintor et al. 2021"),
        "cw": Row(_carlini_wagner, "Carlini & Wagner 2017", "12 FB", threats=(L2, Linf)),
        "cw-hc": Row(
            partial(_carlini_wagner, confidence=10.0),
            "Carlini & Wagner 2017",
            "12 FB",
            threats=(L2, Linf),
        ),
        "ead": Row(EAD, "Chen et al. 2018", "18 F + 9 B", threats=(L1, L2)),
        "jsma": Row(JSMA, "Papernot et al. 2016", "1 FB a pixel", budget=None, threats=(L0,)),
        "spsa": Row(SPSA, "Uesato et al. 2018", "129 F"),
        "nes": Row(NES, "Ilyas et al. 2018", "51 F"),
        "hop-skip-jump": Row(
            HopSkipJump, "Chen et al. 2020", "1 F", budget="queries", threats=(Linf, L2)
        ),
        "spatial": Row(_anywhere(Spatial), "Engstrom et al. 2019", "776 F", budget=None),
        "gaussian-noise": Row(_anywhere(GaussianNoise), "-", "1 F", budget="draws"),
    },
)
WORD = r"[a-z]+\d*"
"""A word of a name; a number after a dash is the budget."""


def names() -> tuple[str, ...]:
    """The names that `parse` knows.

    >>> rj.attacks.names()[:4]
    ('fgsm', 'r-fgsm', 'bim', 'ilcm')
    """
    return tuple(ATTACKS)


@checked
def register(
    name: str,
    make: Callable[..., Attack],
    *,
    budget: str | None = "steps",
    threats: tuple[type, ...] = ANY,
    paper: str = "-",
    cost: str = "-",
) -> None:
    """Register an attack for `parse` and the command line (`--import my_package`).

    Args:
      name: words of lower-case letters with dashes between them; digits may end a word.
      make: threat -> attack, such as a class whose first field is the threat.
      budget: the argument of `make` for the number after the name, as in name-40; None: no number.
      threats: the classes of threats that it is defined for.
      paper, cost: for `robustjax attacks`, see `Row`.

    Raises:
      ValueError: robustjax has an attack of this name, or the name could be read as a number.

    >>> rj.attacks.register("first-step", rj.attacks.FGSM, budget=None)
    >>> rj.attacks.parse("first-step", rj.threats.Linf(0.125)).steps
    1
    """
    if not re.fullmatch(rf"{WORD}(-{WORD})*", name):
        raise ValueError(
            f"the name of an attack is made of words such as my-attack or fgsm2, got {name!r}: "
            "a number after a dash would be its steps"
        )
    ATTACKS.register(name, Row(make, paper, cost, budget, threats))


@checked
def parse(text: str, threat: Threat) -> Attack:
    """Build an attack from its name and settings: NAME[-BUDGET][xRESTARTS][:FIELD=VALUE ...].

    The budget is the number of steps; for 'square' and 'hop-skip-jump' that of queries. Settings
    are those of `robustjax.spec`; with restarts they belong to the attack itself.

    >>> parse("pgd-40:start=zero:stop=misclassified", Linf(0.1)).steps
    40
    >>> parse("apgd-ce-5x3:loss=dlr", Linf(0.1)).n
    3

    Raises:
      ValueError: an unknown name, a number for an attack without a budget, a threat that the attack
        is not defined for, or an unknown setting.
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
