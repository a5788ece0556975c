"""What an evaluation says of the networks, and how far an attack gets that follows the advice.

The networks of a list are branches of one function of their number, so all of them share programs.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from robustjax.attacks import PGD, Randomized, Square
from robustjax.evaluation import Report, evaluate
from robustjax.losses import margin
from robustjax.threats import Linf

from .defences import Defence, as_it_is, known
from .nets import dense, digits, fitted
from .sound import Sound

BROKEN = 0.2
"""The eps at which the undefended network keeps no image."""
SURVIVED = 0.05
"""The eps at which sound networks keep most, so that flags could doubt them."""
STANDARD = {"pgd": PGD(Linf(BROKEN)), "square": Square(Linf(BROKEN), queries=100)}
"""The attacks of whoever looks no further."""
ADVISED = {
    "bpda": PGD(Linf(BROKEN), steps=40),
    "margin": PGD(Linf(BROKEN), steps=40, loss=margin),
    "eot": PGD(Linf(BROKEN), steps=40, loss=margin, eot=10),
}
"""The attack that leads to the truth, by the word that a flag says it with."""


def branches(functions: Sequence[Callable], weights: Sequence[Any]) -> Iterator[Partial]:
    """Models of one structure: the functions of (weights, ...), one after another."""

    def one(number, weights, *rest):
        cases = [
            lambda weights, *rest, i=i, f=f: f(weights[i], *rest) for i, f in enumerate(functions)
        ]
        return jax.lax.switch(number, cases, weights, *rest)

    for number in range(len(functions)):
        yield Partial(one, jnp.int32(number), tuple(weights))


def told(defences: Sequence[Defence], hard: Callable) -> list[Callable]:
    """Their functions of (weights, ...) for whoever has this `hard`."""
    return [functools.partial(d.logits, hard=hard) for d in defences]


def report_of(model: Callable, attacks: dict, n: int) -> Report:
    """The evaluation on the first n test images, whose warnings stay in the report."""
    images, labels = digits("test")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return evaluate(model, images[:n], labels[:n], attacks, jax.random.key(0))


def undefended(n: int) -> float:
    """What PGD leaves of the network that all defences defend."""
    return report_of(Partial(dense, fitted()), {"pgd": ADVISED["margin"]}, n).robust["pgd"]


def of_defences(defences: Sequence[Defence], n: int = 64) -> Iterator[dict[str, Any]]:
    """A row for each: what the standard attacks leave, the flags, what the advised attack leaves.

    'advice' is whether the word for that attack stands in a flag.
    """
    for random in (False, True):
        kind = [d for d in defences if d.random == random]
        weights = [d.weights() for d in kind]
        seen, adapted = (branches(told(kind, hard), weights) for hard in (as_it_is, known))
        for d, *models in zip(kind, seen, adapted, strict=True):
            plain, knowing = map(Randomized, models) if random else models
            standard = report_of(plain, STANDARD, n)
            last = report_of(knowing, {d.attack: ADVISED[d.attack]}, n)
            yield {
                "defence": d.name,
                "source": d.source,
                "broken": d.broken,
                "clean": standard.clean,
                **standard.robust,
                "flags": standard.warnings,
                "attack": d.attack,
                "advice": any(d.attack in flag for flag in standard.warnings),
                "adapted": last.robust[d.attack],
            }


def of_sound(sound: Sequence[Sound], n: int = 64) -> Iterator[dict[str, Any]]:
    """A row for each: what the standard attacks leave at the two radii, and the flags, if any."""
    models = branches([s.logits for s in sound], [s.weights() for s in sound])
    for s, model in zip(sound, models, strict=True):
        for eps in (SURVIVED, BROKEN):
            attacks = {
                "pgd": PGD(Linf(eps)),
                "square": Square(Linf(eps), queries=100),
            }
            found = report_of(model, attacks, n)
            row = {"network": s.name, "eps": eps, "clean": found.clean, **found.robust}
            yield row | {"flags": found.warnings}
