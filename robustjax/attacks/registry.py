"""Attacks by the names of the command line: 'fgsm', 'pgd-40', 'pgd-40x10'."""

from __future__ import annotations

import re

from robustjax.attacks.ensemble import Restarts
from robustjax.attacks.gradient import BIM, FGSM, ILCM, MIFGSM, PGD, RFGSM
from robustjax.typing import Attack, Threat

ONE_STEP = {"fgsm": FGSM, "r-fgsm": RFGSM}
ITERATIVE = {"bim": BIM, "ilcm": ILCM, "mi-fgsm": MIFGSM, "pgd": PGD}


def names() -> tuple[str, ...]:
    """What `parse` knows."""
    return tuple(sorted({**ONE_STEP, **ITERATIVE}))


def parse(text: str, threat: Threat) -> Attack:
    """An attack from its name: NAME, NAME-STEPS, NAME-STEPSxRESTARTS or NAME-xRESTARTS.

    Raises:
      ValueError: an unknown name, or steps for a one-step attack.
    """
    match = re.fullmatch(r"([a-z-]*?[a-z])(?:-(?=[\dx])(\d+)?(?:x(\d+))?)?", text.strip().lower())
    name, steps, restarts = match.groups() if match else (text, None, None)
    if name in ITERATIVE:
        attack = ITERATIVE[name](threat, steps=int(steps)) if steps else ITERATIVE[name](threat)
    elif name in ONE_STEP and not steps:
        attack = ONE_STEP[name](threat)
    elif name in ONE_STEP:
        raise ValueError(f"{name} takes one step; write {name!r}, not {text!r}")
    else:
        raise ValueError(
            f"unknown attack {text!r}; known: {', '.join(names())}, with steps and restarts as in "
            "pgd-40 or pgd-40x10"
        )
    return Restarts(attack, int(restarts)) if restarts else attack
