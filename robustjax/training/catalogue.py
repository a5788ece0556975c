"""The methods by the names of the command line, with their defaults and where they are from."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from robustjax.attacks import PGD
from robustjax.attacks.starts import Uniform
from robustjax.attacks.steps import Adam, Unclipped
from robustjax.attacks.stops import Misclassified, Stationary
from robustjax.checks import checked, in_body
from robustjax.names import Names
from robustjax.training import methods, recipes
from robustjax.training.methods.trades import ATTACK
from robustjax.training.recipes import BASELINE, Recipe

Group = Literal["loss", "attack", "head", "network", "state", "update", "data"]


class Entry(NamedTuple):
    """A method in the listing.

    Attributes:
      method: with its defaults.
      paper: where it is from.
      group: what sets it apart from adversarial training on PGD: its loss, its attack, the head of
        its model, the rest of it or a second one, what it remembers of each example, how it
        updates, or the extra data that it is made for.
      recipe: the defaults of its other flags, unless a card is named.

    >>> CATALOGUE["sat"].state, CATALOGUE["sat"].cost
    ('per example', '12 FB + 1 F')
    """

    method: methods.Method
    paper: str
    group: Group
    recipe: Recipe = BASELINE

    @property
    def state(self) -> str:
        """The state it carries from step to step."""
        labels, images = jnp.zeros(1, jnp.int32), jnp.zeros((1, 1, 1, 1))
        kinds = {
            "per example": self.method.init_rows(labels, 2),
            "per position": self.method.init_slot(images),
        }
        return ", ".join(kind for kind, state in kinds.items() if jax.tree.leaves(state)) or "-"

    @property
    def cost(self) -> str:
        """Of a training step: FB is a forward and a backward pass over the batch, F a forward."""
        parts = self.method.craft_cost, self.method.loss_cost
        forwards, backwards = (sum(cost) for cost in zip(*parts, strict=True))
        alone = forwards - backwards
        return f"{backwards} FB" + (f" + {alone} F" if alone else "")


FAST = PGD(steps=1, rel_step=1.25)
NOISY = PGD(steps=1, rel_step=1.0, start=Uniform(2.0), rule=Unclipped())
GOWAL = PGD(step_size=0.1, rule=Adam())


def friendly(attack: PGD, epochs: int, *later: int) -> PGD:
    """The attack, stopped where the prediction is wrong; a step later after each of the epochs."""
    stop = Misclassified(later=tuple(epoch / epochs for epoch in later))
    return dataclasses.replace(attack, stop=stop)


CATALOGUE = Names(
    "method",
    {
        "natural": Entry(methods.Natural(), "-", "loss"),
        "pgd-at": Entry(methods.PGDAT(), "Madry et al. 2018", "loss"),
        "trades": Entry(methods.TRADES(), "Zhang et al. 2019", "loss"),
        "mart": Entry(methods.MART(), "Wang et al. 2020", "loss"),
        "alp": Entry(methods.ALP(), "Kannan et al. 2018", "loss"),
        "mixture": Entry(methods.ALP(weight=0.0), "Goodfellow et al. 2015", "loss"),
        "score": Entry(methods.SCORE(), "Pang et al. 2022", "loss"),
        "avmixup": Entry(methods.AVmixup(), "Lee et al. 2020", "loss"),
        "margin-blend": Entry(methods.MarginBlend(), "Pang et al. 2021", "loss"),
        "llr": Entry(methods.LLR(), "Qin et al. 2019", "loss"),
        "tla": Entry(methods.TLA(), "Mao et al. 2019", "loss"),
        "level-sets": Entry(methods.LevelSets(), "Atzmon et al. 2019", "loss", recipes.LEVEL_SETS),
        "fast-at": Entry(methods.PGDAT(FAST, "commit", guard=0.2), "Wong et al. 2020", "attack"),
        "n-fgsm": Entry(methods.PGDAT(NOISY, "commit"), "de Jorge et al. 2022", "attack"),
        "grad-align": Entry(methods.GradAlign(), "Andriushchenko & Flammarion 2020", "attack"),
        "early-stopping": Entry(
            methods.PGDAT(bn="commit"), "Rice et al. 2020", "attack", recipes.RICE
        ),
        "curriculum": Entry(methods.Curriculum(), "Cai et al. 2018", "attack"),
        "dynamic-at": Entry(methods.PGDAT(PGD(stop=Stationary())), "Wang et al. 2019", "attack"),
        "fat": Entry(methods.PGDAT(friendly(PGD(), 120, 50, 90)), "Zhang et al. 2020", "attack"),
        "fat-trades": Entry(
            methods.TRADES(attack=friendly(ATTACK, 85, 30, 50, 70)), "Zhang et al. 2020", "attack"
        ),
        "fat-mart": Entry(
            methods.MART(friendly(ATTACK, 90, 20, 40, 60, 80)), "Zhang et al. 2020", "attack"
        ),
        "feature-scattering": Entry(methods.FeatureScattering(), "Zhang & Wang 2019", "attack"),
        "pgd-at-he": Entry(
            methods.HE(methods.PGDAT(ATTACK), scale=10.0), "Pang et al. 2020", "head"
        ),
        "trades-he": Entry(methods.HE(methods.TRADES()), "Pang et al. 2020", "head"),
        # The published weight is of the cosines' squares, which the scale does not multiply.
        "alp-he": Entry(
            methods.HE(methods.ALP(weight=0.5 / 20**2), scale=20.0, margin=0.3),
            "Pang et al. 2020",
            "head",
        ),
        "rr": Entry(methods.RectifiedRejection(methods.PGDAT()), "Pang et al. 2022", "head"),
        "rr-trades": Entry(
            methods.RectifiedRejection(methods.TRADES()), "Pang et al. 2022", "head"
        ),
        "pgd-at-adanet": Entry(
            methods.AdaNet(methods.PGDAT()), "Xu et al. 2020 (our reading)", "network"
        ),
        "trades-adanet": Entry(
            methods.AdaNet(methods.TRADES()), "Xu et al. 2020 (our reading)", "network"
        ),
        "lbgat": Entry(methods.LBGAT(), "Cui et al. 2021", "network"),
        "hat": Entry(methods.HAT(), "Rade & Moosavi-Dezfooli 2022", "network"),
        "sat": Entry(methods.SAT(), "Huang et al. 2020", "state"),
        "mma": Entry(methods.MMA(), "Ding et al. 2020", "state"),
        "cat": Entry(methods.CAT(), "Cheng et al. 2020", "state"),
        "free": Entry(methods.Free(), "Shafahi et al. 2019", "update"),
        "yopo": Entry(methods.YOPO(), "Zhang et al. 2019", "update"),
        "trades-yopo": Entry(methods.TradesYOPO(), "Zhang et al. 2019", "attack"),
        "rst": Entry(methods.TRADES(), "Carmon et al. 2019", "data", recipes.RST),
        "uat-ot": Entry(methods.UAT(), "Alayrac et al. 2019", "data", recipes.UAT),
        "uat-ft": Entry(methods.PGDAT(ATTACK), "Alayrac et al. 2019", "data", recipes.UAT),
        "uat++": Entry(methods.UAT(fixed=True), "Alayrac et al. 2019", "data", recipes.UAT),
        "gowal": Entry(
            methods.TRADES(attack=GOWAL, bn="batch", commits="adversarial"),
            "Gowal et al. 2020",
            "data",
            recipes.GOWAL,
        ),
        "rebuffi": Entry(
            methods.TRADES(attack=GOWAL, bn="batch", commits="adversarial", away_from="target"),
            "Rebuffi et al. 2021",
            "data",
            recipes.REBUFFI,
        ),
        "wang": Entry(
            methods.TRADES(5.0, PGD(), bn="batch"), "Wang et al. 2023", "data", recipes.WANG
        ),
        "sce": Entry(methods.SCE(), "-", "head", recipes.MMC),
        "mmlda": Entry(methods.MMLDA(), "Pang et al. 2018", "head", recipes.MMC),
        "mmc": Entry(methods.MMC(), "Pang et al. 2020", "head", recipes.MMC),
        "lgm": Entry(methods.LGM(), "Wan et al. 2018", "head", recipes.MMC),
        "center": Entry(methods.Center(), "Wen et al. 2016", "head", recipes.MMC),
        "gsce": Entry(methods.GSCE(), "Pang et al. 2020", "head", recipes.MMC),
        "rce": Entry(methods.RCE(), "Pang et al. 2018", "loss", recipes.RCE),
    },
)
"""Name -> entry."""

METHODS = {name: entry.method for name, entry in CATALOGUE.items()}
"""Name -> method."""


@checked(method=in_body)
def register(
    name: str,
    method: methods.Method,
    *,
    paper: str = "-",
    group: Group = "loss",
    recipe: Recipe = BASELINE,
) -> None:
    """Add a method to the catalogue.

    A module that calls this makes it a command: `robustjax --import MODULE train NAME`, with its
    fields as flags.

    Args:
      name: on the command line.
      method: with its defaults.
      paper: for the listing.
      group: see `Entry`.
      recipe: the defaults of its other flags.

    Raises:
      ValueError: the name is taken, and not by your own module, or cannot be a word of a command.

    >>> register("weak-trades", methods.TRADES(beta=1.0), paper="this work")
    >>> METHODS["weak-trades"].beta
    1.0
    >>> del CATALOGUE["weak-trades"], METHODS["weak-trades"]
    """
    if not isinstance(method, methods.Method):
        raise TypeError(f"register takes a method, such as TRADES(), got {method!r}")
    CATALOGUE.register(name, Entry(method, paper, group, recipe))
    METHODS[name] = method
