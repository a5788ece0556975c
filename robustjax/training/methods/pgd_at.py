"""Adversarial training on the examples of one attack (Madry et al. 2018; Rice et al. 2020)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax

from robustjax.attacks import PGD
from robustjax.config import config, static
from robustjax.training.methods.base import (
    Aux,
    Batch,
    Crafted,
    Method,
    accuracy,
    check_type,
    cross_entropy,
)
from robustjax.training.net import Net

ATTACK = PGD()
"""Ten sign steps of eps / 4 from a uniform start, eps 8/255."""

BNMode = Literal["running", "batch", "commit"]


@dataclasses.dataclass(frozen=True)
class OnAttack(Method):
    """What crafts by an attack on the label, whatever it does with the examples.

    Attributes:
      attack: its loss must be one of the label.
      bn: BatchNorm's mode while crafting: 'running' (eval mode, the baseline of Pang et al. 2021),
        'batch', or 'commit' (train mode: every attack step moves the statistics; Madry, Rice).
    """

    attack: PGD = ATTACK
    bn: BNMode = static("running")

    def __post_init__(self):
        check_type("attack", self.attack, PGD)
        self.attack.check_aim()

    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """Maximise the attack's loss within the threat."""
        return Crafted(
            *net.craft(self.attack, params, keys, batch.image, batch.label, mode=self.bn)
        )


@config
class PGDAT(OnAttack):
    """min E CE(z(x_adv), t), x_adv from the attack; adversarial examples only.

    Attributes:
      attack: ten sign steps of eps / 4 from a uniform start, eps 8/255. Its loss must be one of the
        label.
      bn: BatchNorm's mode while crafting: 'running' (eval mode, the baseline of Pang et al. 2021),
        'batch', or 'commit' (train mode: every attack step moves the statistics; Madry, Rice).

    References: Madry et al., ICLR 2018; Rice et al., ICML 2020; Pang et al., ICLR 2021.
    """

    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        """CE on the adversarial images."""
        logits, stats = net.train(params, crafted.x_adv)
        loss = cross_entropy(net, logits, batch).mean()
        return loss, Aux(stats, {"robust_accuracy": accuracy(logits, batch.label)})
