"""What to distrust in an attack: each flag says what is odd and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks._core.ensemble import leaves
from robustjax.attacks._core.iterative import Example, Iterative, MinimumNorm
from robustjax.attacks._core.randomized import Randomized, averaged
from robustjax.attacks._engine.craft import Verdict
from robustjax.attacks._engine.examples import Examples
from robustjax.attacks._engine.ledger import Stage, met_nan
from robustjax.attacks._engine.model import num_classes, one_example
from robustjax.attacks._engine.setting import Setting
from robustjax.attacks._engine.tiles import over_tiles
from robustjax.attacks._gradient.ascent import Ascent
from robustjax.attacks.targets import Goal, Target, goal_of
from robustjax.losses import dlr, targeted_dlr
from robustjax.threats import radius
from robustjax.threats._trees import threats_of
from robustjax.typing import Attack, Loss

ZERO_GRADIENT = 0.01
"""A larger fraction of examples without a gradient makes the accuracy untrustworthy."""
BLACK_BOX = 0.002
"""The fraction of all examples that an attack without gradients may win after those with one."""
BESIDE = 0.01
"""The same for attacks apart, none of which saw what the others had won."""
SEARCHED = 10
"""The fewest gradients an image after which an attack should have found what there is."""
RESTART = 0.005
"""The fraction of all examples that the last restart may still win."""
UNMOVED = 0.1
"""The fraction of the survivors that an attack may return as they were."""
RESOLUTION = 2.0**-24
"""The smallest change of a pixel near 1 in float32."""
UNFINISHED = 0.1
"""The fraction of the survivors that an attack may still be gaining on when it ends."""


@runtime_checkable
class FollowsGradient(Protocol):
    """An attack whose gradient can be diagnosed."""

    @property
    def loss(self) -> Loss:
        """(output, target) -> scalar."""
        ...

    @property
    def target(self) -> Target:
        """Where it goes if the caller does not say."""
        ...

    def gradient(self, logits_fn: Any, x: jax.Array, goal: Goal) -> jax.Array:
        """The direction it ascends in."""
        ...


@runtime_checkable
class Travels(Protocol):
    """An attack that knows how far its steps lead, in units of eps."""

    reach: Any


@runtime_checkable
class Draws(Protocol):
    """An attack that draws a `Randomized` model anew at every step."""

    eot: Any


def of_attack(
    attack: Attack,
    setting: Setting,
    examples: Examples,
    verdict: Verdict,
    stages: Sequence[Stage],
    total: int,
) -> tuple[list[str], float | None]:
    """Flags of one attack after its run on the examples that were right, and its blindness.

    Returns:
      the sentences, and the fraction of examples at which the gradients of all of its objectives
      are exactly zero; None where none follows a gradient.
    """
    classes = num_classes(setting.model, examples)
    parts = leaves(attack, classes)
    found = [*_unreachable(parts), *_few_classes(parts, classes), *_unfinished(stages)]
    found += _one_draw(parts, setting.model)
    found += [*_black_box(stages, total), *_restarts(stages, total)]
    failures = [*met_nan(stages), *_empty_balls(parts), *_frozen(parts)]
    followers = [part for part in parts if isinstance(part, FollowsGradient)]
    objectives = {(type(p), p.loss, type(p.target)): p for p in followers}
    if not objectives:
        return found + (failures or _unmoved(parts, stages)), None
    blind = _blind(objectives.values(), setting, examples, verdict)
    if blind > ZERO_GRADIENT:
        found.append(
            f"the loss gradient is exactly zero at {blind:.1%} of the attacked images, so the "
            "attack is blind there and its accuracy says nothing about robustness (masked "
            "gradients); try a margin loss (PGD(loss=margin)), bpda around the part without a "
            "derivative, or an attack without gradients (Square)"
        )
    elif not failures:
        failures = _unmoved(parts, stages)
    return found + failures, blind


def _blind(objectives, setting, examples, verdict) -> float:
    """The fraction of examples where none has one at the clean image, or at one that resists."""
    blind, resists = np.ones(len(examples), bool), verdict.stage < 0
    for attack in objectives:
        blind &= no_gradient(attack, setting, examples) | (
            no_gradient(attack, setting, examples, verdict.image) & resists
        )
        if not blind.any():  # what the other objectives see changes nothing
            break
    return float(blind.mean())


def no_gradient(
    attack: FollowsGradient,
    setting: Setting,
    examples: Examples,
    images: np.ndarray | None = None,
) -> np.ndarray:
    """(N,) bool: the attack's gradient is exactly zero at the images, by default the clean ones."""
    rows = {"row": examples.rows(), "at": examples.image if images is None else images}
    shared = (attack, setting.crafted_on, setting.key)
    return over_tiles(_no_gradient_one, shared, rows, setting.batch_size)


def _no_gradient_one(attack, model, key, rows):
    row, logits_fn = rows["row"], averaged(one_example(model))
    key = jax.random.fold_in(key, row["index"])
    example = Example(key, row["image"], row["label"], row["target"])
    goal = goal_of(attack, logits_fn, key, example)
    return jnp.all(attack.gradient(logits_fn, rows["at"], goal) == 0)


def outside(attack: Attack, threat: Any) -> str:
    """Why an attack does not count in the worst case under a threat."""
    own = ", ".join(_short(other) for other in threats_of(attack))
    what = f"its threat is {own}" if own else "it has no threat"
    return f"{what}, so it does not count in the worst case, which is under {_short(threat)}"


def _short(threat):
    eps = np.asarray(threat.eps)
    size = f"{float(eps):.4g}" if eps.ndim == 0 else f"of shape {eps.shape}"
    return f"{type(threat).__name__} {size}"


def _unreachable(parts):
    return [
        f"all steps together travel {float(part.reach):.2g} eps, so parts of the ball are out of "
        "reach from some starts"
        for part in parts
        if isinstance(part, Travels) and part.reach < 1 - 1e-6
    ]


def _empty_balls(parts):
    """Attacks whose ball holds nothing but the clean image."""
    eps = {type(part).__name__: _radius(part) for part in parts if _radius(part) < RESOLUTION}
    return [
        f"eps = {radius:g} {'is less than float32 pixels can resolve' if radius else 'is no room'},"
        f" so the accuracy under {name} is the clean one"
        for name, radius in eps.items()
    ]


def _radius(part) -> float:
    """The radius of an attack's threat; inf where it has none."""
    return float(radius(part.threat)) if getattr(part, "threat", None) else np.inf


def _frozen(parts):
    return [
        f"the steps of {type(part).__name__} are {float(part.size):g} long, less than float32 "
        "pixels can resolve, so it ends where it starts"
        for part in parts
        if isinstance(part, Ascent) and part.size < RESOLUTION <= _radius(part)
    ]


def _unmoved(parts, stages):
    """An attack that returns the clean image, at every stage, has found nothing to try."""
    unmoved = min(stage.unmoved / max(stage.attacked - stage.succeeded, 1) for stage in stages)
    if unmoved <= UNMOVED:
        return []
    if all(isinstance(part, MinimumNorm) for part in parts):
        return [
            f"a search at any distance found no adversarial image for {unmoved:.1%} of the images "
            "that resist it, which says nothing about robustness: it has too few steps or queries, "
            "steps that are too short, or no useful gradient"
        ]
    return [
        f"{unmoved:.1%} of the images that resist it come back unchanged, so nothing was tried "
        "there: it has no gradient, or steps, a budget or a mask that allow no change"
    ]


def _one_draw(parts, model):
    names = dict.fromkeys(type(part).__name__ for part in parts if not isinstance(part, Draws))
    if not isinstance(model, Randomized) or model.eot > 1 or not names:
        return []
    return [
        f"one fixed draw of the randomised model is all that {', '.join(names)} looked at, and the "
        "verdict is over others, so its accuracy is too high: give it the mean of many, "
        "Randomized(function, eot=20), or trust attacks that draw at every step (PGD and APGD with "
        "the field eot, SPSA, NES)"
    ]


def _few_classes(parts, classes):
    if 0 < classes < 4 and any(
        getattr(part, "loss", None) in (dlr, targeted_dlr) for part in parts
    ):
        return [
            f"the model has {classes} classes and the DLR losses need 3 or 4: fewer logits go into "
            "their divisor (see losses.dlr), and only the classes that exist are targets"
        ]
    return []


def _black_box(stages, total):
    limit = max(BLACK_BOX * total, 1)  # one image may be luck
    for i, stage in enumerate(stages):
        after_gradients = any(
            earlier.cost.backwards > 0 and _threat(earlier) == _threat(stage) is not None
            for earlier in stages[:i]
        )
        if stage.cost.backwards == 0 and after_gradients and stage.succeeded > limit:
            yield (
                f"{type(stage.attack).__name__}, which sees no gradient, broke "
                f"{stage.succeeded / total:.1%} of the images after the attacks with gradients had "
                "failed on them: gradients are masked somewhere; find the part that saturates or "
                "has no derivative, and attack it with bpda or a loss of its own"
            )


def differentiates(attack: Attack, classes: int) -> bool:
    """Whether a stage of the attack, on a model with K classes, differentiates the model."""
    return any(
        isinstance(part, FollowsGradient) or (isinstance(part, Iterative) and part.differentiates)
        for part in leaves(attack, classes)
    )


def side_by_side(
    won: Mapping[str, np.ndarray], stages: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[str]:
    """Flags of attacks under one threat that were run apart: without gradients, and with them.

    Args:
      won: per attack (N,) bool, its successes.
      stages: per attack what its stages cost, as in `Report.stages`.
    """
    blind = [name for name, rows in stages.items() if all(row["backwards"] == 0 for row in rows)]
    thorough = [
        name
        for name, rows in stages.items()
        if rows and sum(row["backwards"] for row in rows) >= SEARCHED * rows[0]["attacked"] > 0
    ]
    if not thorough:
        return []
    found = np.any([won[name] for name in thorough], axis=0)
    more = {name: (won[name] & ~found).sum() for name in blind}
    return [
        f"{name} sees no gradient, and broke {count / len(found):.1%} of the images that "
        f"{', '.join(thorough)} with gradients did not: gradients are masked somewhere; find the "
        "part that saturates or has no derivative, and attack through bpda with a smooth stand-in "
        "for it, or with a loss that does not saturate (margin)"
        for name, count in more.items()
        if count > max(BESIDE * len(found), 1)
    ]


def _threat(stage):
    return getattr(stage.attack, "threat", None)


def _restarts(stages, total):
    for stage in stages:
        same = [s for s in stages if s.attack is stage.attack and s.path[:-1] == stage.path[:-1]]
        if len(same) > 1 and stage is same[-1] and stage.succeeded > RESTART * total:
            yield (
                f"the last of {len(same)} restarts of {type(stage.attack).__name__} still broke "
                f"{stage.succeeded / total:.1%} of the images: more restarts would find more"
            )


def _unfinished(stages):
    for stage in stages:
        resist = stage.attacked - stage.succeeded
        if stage.unfinished > UNFINISHED * resist:
            yield (
                f"{type(stage.attack).__name__} was still gaining at its end on "
                f"{stage.unfinished / resist:.0%} of the images that resist it: more steps would "
                "find more"
            )
