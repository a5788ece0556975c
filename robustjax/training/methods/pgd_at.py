"""Adversarial training on the examples of one attack (Madry et al. 2018; Rice et al. 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.attacks.targets import TrueLabel, check_goal
from robustjax.config import config, number, static
from robustjax.training.methods.base import (
    Action,
    Aux,
    Batch,
    Crafted,
    Method,
    accuracy,
    cross_entropy,
)
from robustjax.training.net import Net
from robustjax.typing import Cost, Loss

ATTACK = PGD()
"""Ten sign steps of eps / 4 from a uniform start, eps 8/255."""

BNMode = Literal["running", "batch", "commit"]


def climbing(attack: PGD, loss: Loss, **changes: Any) -> PGD:
    """The attack that maximises this loss, whatever loss and label it names itself."""
    return dataclasses.replace(attack, loss=loss, target=TrueLabel(), **changes)


@dataclasses.dataclass(frozen=True)
class OnAttack(Method):
    """Crafts by an attack on the label; CE on its examples, unless a method has another loss.

    Attributes:
      attack: its loss must be one of the label.
      bn: BatchNorm's mode while crafting: 'running' (eval mode, the baseline of Pang et al. 2021),
        'batch', or 'commit' (train mode: every attack step moves the statistics; Madry, Rice).
    """

    attack: PGD = ATTACK
    bn: BNMode = static(default="running")

    def __post_init__(self):
        check_goal(self.attack)

    @property
    @override
    def craft_cost(self) -> Cost:
        return self.attack.cost

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        return Crafted(
            *net.craft(self.attack, params, keys, batch.image, batch.label, mode=self.bn)
        )

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        logits, stats = net.train(params, crafted.x_adv)
        loss = cross_entropy(net, logits, batch).mean()
        return loss, Aux(stats, {"robust_accuracy": accuracy(logits, batch.label)})


@config
class PGDAT(OnAttack):
    """min E CE(z(x_adv), t), x_adv from the attack; adversarial examples only.

    By its attack it is the method of several papers: Fast AT takes one step of 1.25 eps from a
    uniform start (on MNIST one outside the box, `starts.UnclippedUniform`), N-FGSM one of eps from
    twice the ball, unclipped; friendly AT stops where the prediction is wrong, dynamic AT where the
    gradient says that little is left to gain.

    Attributes:
      attack: ten sign steps of eps / 4 from a uniform start, eps 8/255. Its loss must be one of the
        label.
      bn: BatchNorm's mode while crafting: 'running' (eval mode, the baseline of Pang et al. 2021),
        'batch', or 'commit' (train mode: every attack step moves the statistics; Madry, Rice).
      focal: gamma of the focal loss in training; 0 is the cross-entropy.
      commits: the forwards whose BatchNorm statistics are committed, in this order. Clean ones are
        made for that alone; the authors of "Bag of tricks" log them before and after every step.
      guard: training stops when the validation score falls by more in one epoch. It guards against
        catastrophic overfitting: Fast AT's is 0.2, and 1 turns it off. The best checkpoint
        stays. (The authors look at PGD-5 on one training batch, and keep the weights of the epoch
        before.)

    References: Madry et al., ICLR 2018; Rice et al., ICML 2020; Pang et al., ICLR 2021; Wong et
      al., "Fast is better than free", ICLR 2020; de Jorge et al., NeurIPS 2022 (N-FGSM); Zhang et
      al., ICML 2020 (friendly AT, without the noise of its steps); Wang et al., ICML 2019 (dynamic
      AT, without the weights of the authors' code).

    >>> PGDAT(PGD(steps=1, rel_step=1.25), bn="commit", guard=0.2).control([0.5, 0.1])[1]
    'stop'
    """

    guard: float = number(default=1.0, low=0, high=1)
    focal: float = number(default=0.0)
    commits: tuple[Literal["adversarial", "clean"], ...] = static(default=("adversarial",))

    def __post_init__(self):
        super().__post_init__()
        others = [name for name in self.commits if name != "clean"]
        if others != ["adversarial"]:
            raise ValueError(
                "commits must name the adversarial forward once and any number of clean ones, got "
                f"{self.commits!r}"
            )

    @property
    @override
    def loss_cost(self) -> Cost:
        # The adversarial pass, and the clean forwards.
        return Cost(len(self.commits), 1)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        stats, images = net.stats, {"adversarial": crafted.x_adv, "clean": batch.image}
        logits = {}
        for name in self.commits:
            logits[name], stats = net.train(params, images[name], stats)
        ce = cross_entropy(net, logits["adversarial"], batch)
        robust = accuracy(logits["adversarial"], batch.label)
        return losses.focal(ce, self.focal).mean(), Aux(stats, {"robust_accuracy": robust})

    @override
    def control(self, scores: Sequence[float]) -> tuple[Method, Action]:
        fell = len(scores) > 1 and scores[-2] - scores[-1] > self.guard
        return self, "stop" if fell else "continue"
