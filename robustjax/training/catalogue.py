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
from robustjax.training.methods.adanet import AdaNet
from robustjax.training.methods.alp import ALP
from robustjax.training.methods.avmixup import AVmixup
from robustjax.training.methods.base import Method
from robustjax.training.methods.cat import CAT
from robustjax.training.methods.center import Center
from robustjax.training.methods.curriculum import Curriculum
from robustjax.training.methods.feature_scattering import FeatureScattering
from robustjax.training.methods.free import Free
from robustjax.training.methods.grad_align import GradAlign
from robustjax.training.methods.gsce import GSCE, LGM, MMC, MMLDA, SCE
from robustjax.training.methods.hat import HAT
from robustjax.training.methods.he import HE
from robustjax.training.methods.lbgat import LBGAT
from robustjax.training.methods.level_sets import LevelSets
from robustjax.training.methods.llr import LLR
from robustjax.training.methods.margin_blend import MarginBlend
from robustjax.training.methods.mart import MART
from robustjax.training.methods.mma import MMA
from robustjax.training.methods.natural import Natural
from robustjax.training.methods.pgd_at import PGDAT
from robustjax.training.methods.rce import RCE
from robustjax.training.methods.rectified_rejection import RectifiedRejection
from robustjax.training.methods.sat import SAT
from robustjax.training.methods.score import SCORE
from robustjax.training.methods.tla import TLA
from robustjax.training.methods.trades import ATTACK, TRADES
from robustjax.training.methods.uat import UAT
from robustjax.training.methods.yopo import YOPO, TradesYOPO

Group = Literal["loss", "attack", "head", "network", "state", "update", "data"]


class Entry(NamedTuple):
    """A method in the listing.

    Attributes:
      method: with its defaults.
      paper: where it is from.
      group: what sets it apart from adversarial training on PGD: its loss, its attack, the head of
        its model, the rest of it or a second one, what it remembers of each example, how it
        updates, or the extra data that it is made for.
    """

    method: Method
    paper: str
    group: Group

    @property
    def state(self) -> str:
        """What it carries from step to step."""
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
    """The attack, stopped where the prediction is wrong: a step later after each of the epochs."""
    stop = Misclassified(later=tuple(epoch / epochs for epoch in later))
    return dataclasses.replace(attack, stop=stop)


CATALOGUE = {
    "natural": Entry(Natural(), "-", "loss"),
    "pgd-at": Entry(PGDAT(), "Madry et al. 2018", "loss"),
    "trades": Entry(TRADES(), "Zhang et al. 2019", "loss"),
    "mart": Entry(MART(), "Wang et al. 2020", "loss"),
    "alp": Entry(ALP(), "Kannan et al. 2018", "loss"),
    "mixture": Entry(ALP(weight=0.0), "Goodfellow et al. 2015", "loss"),
    "score": Entry(SCORE(), "Pang et al. 2022", "loss"),
    "avmixup": Entry(AVmixup(), "Lee et al. 2020", "loss"),
    "margin-blend": Entry(MarginBlend(), "Pang et al. 2021", "loss"),
    "llr": Entry(LLR(), "Qin et al. 2019", "loss"),
    "tla": Entry(TLA(), "Mao et al. 2019", "loss"),
    "level-sets": Entry(LevelSets(), "Atzmon et al. 2019", "loss"),
    "fast-at": Entry(PGDAT(FAST, "commit", guard=0.2), "Wong et al. 2020", "attack"),
    "n-fgsm": Entry(PGDAT(NOISY, "commit"), "de Jorge et al. 2022", "attack"),
    "grad-align": Entry(GradAlign(), "Andriushchenko & Flammarion 2020", "attack"),
    "early-stopping": Entry(PGDAT(bn="commit"), "Rice et al. 2020", "attack"),
    "curriculum": Entry(Curriculum(), "Cai et al. 2018", "attack"),
    "dynamic-at": Entry(PGDAT(PGD(stop=Stationary())), "Wang et al. 2019", "attack"),
    "fat": Entry(PGDAT(friendly(PGD(), 120, 50, 90)), "Zhang et al. 2020", "attack"),
    "fat-trades": Entry(
        TRADES(attack=friendly(ATTACK, 85, 30, 50, 70)), "Zhang et al. 2020", "attack"
    ),
    "fat-mart": Entry(MART(friendly(ATTACK, 90, 20, 40, 60, 80)), "Zhang et al. 2020", "attack"),
    "feature-scattering": Entry(FeatureScattering(), "Zhang & Wang 2019", "attack"),
    "pgd-at-he": Entry(HE(PGDAT(ATTACK), scale=10.0), "Pang et al. 2020", "head"),
    "trades-he": Entry(HE(TRADES()), "Pang et al. 2020", "head"),
    # The published weight is of the cosines' squares, which the scale does not multiply.
    "alp-he": Entry(
        HE(ALP(weight=0.5 / 20**2), scale=20.0, margin=0.3), "Pang et al. 2020", "head"
    ),
    "rr": Entry(RectifiedRejection(PGDAT()), "Pang et al. 2022", "head"),
    "rr-trades": Entry(RectifiedRejection(TRADES()), "Pang et al. 2022", "head"),
    "pgd-at-adanet": Entry(AdaNet(PGDAT()), "Xu et al. 2020", "network"),
    "trades-adanet": Entry(AdaNet(TRADES()), "Xu et al. 2020", "network"),
    "lbgat": Entry(LBGAT(), "Cui et al. 2021", "network"),
    "hat": Entry(HAT(), "Rade & Moosavi-Dezfooli 2022", "network"),
    "sat": Entry(SAT(), "Huang et al. 2020", "state"),
    "mma": Entry(MMA(), "Ding et al. 2020", "state"),
    "cat": Entry(CAT(), "Cheng et al. 2020", "state"),
    "free": Entry(Free(), "Shafahi et al. 2019", "update"),
    "yopo": Entry(YOPO(), "Zhang et al. 2019", "update"),
    "trades-yopo": Entry(TradesYOPO(), "Zhang et al. 2019", "attack"),
    "rst": Entry(TRADES(), "Carmon et al. 2019", "data"),
    "uat-ot": Entry(UAT(), "Alayrac et al. 2019", "data"),
    "uat-ft": Entry(PGDAT(ATTACK), "Alayrac et al. 2019", "data"),
    "uat++": Entry(UAT(fixed=True), "Alayrac et al. 2019", "data"),
    "gowal": Entry(
        TRADES(attack=GOWAL, bn="batch", commits="adversarial"), "Gowal et al. 2020", "data"
    ),
    "rebuffi": Entry(
        TRADES(attack=GOWAL, bn="batch", commits="adversarial", aim="target"),
        "Rebuffi et al. 2021",
        "data",
    ),
    "wang": Entry(TRADES(5.0, PGD(), bn="batch"), "Wang et al. 2023", "data"),
    "sce": Entry(SCE(), "-", "head"),
    "mmlda": Entry(MMLDA(), "Pang et al. 2018", "head"),
    "mmc": Entry(MMC(), "Pang et al. 2020", "head"),
    "lgm": Entry(LGM(), "Wan et al. 2018", "head"),
    "center": Entry(Center(), "Wen et al. 2016", "head"),
    "gsce": Entry(GSCE(), "Pang et al. 2020", "head"),
    "rce": Entry(RCE(), "Pang et al. 2018", "loss"),
}
"""Name -> entry."""

METHODS = {name: entry.method for name, entry in CATALOGUE.items()}
"""Name -> method."""
