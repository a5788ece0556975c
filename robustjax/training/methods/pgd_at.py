"""Adversarial training on the examples of one attack (Madry et al. 2018; Rice et al. 2020)."""

from __future__ import annotations

from typing import Any, Literal

import jax

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.config import config, static
from robustjax.training.methods.base import Aux, Batch, Crafted, Method, accuracy, check_type
from robustjax.training.net import Net


@config
class PGDAT(Method):
    """min E CE(z(x_adv), t), x_adv from the attack; adversarial examples only.

    Attributes:
      attack: ten sign steps of eps / 4 from a uniform start, eps 8/255. One step of 1.25 eps makes
        it Fast AT's FGSM-RS (Wong et al. 2020). Its loss must be one of the label.
      bn: BatchNorm's mode while crafting: 'running' (eval mode, the baseline of Pang et al. 2021),
        'batch', or 'commit' (train mode: every attack step moves the statistics; Madry, Rice).

    References: Madry et al., ICLR 2018; Rice et al., ICML 2020; Pang et al., ICLR 2021.
    """

    attack: PGD = PGD()
    bn: Literal["running", "batch", "commit"] = static("running")

    def __post_init__(self):
        check_type("attack", self.attack, PGD)
        self.attack.check_aim()

    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """Maximise the attack's loss within the threat."""
        return Crafted(
            *net.craft(self.attack, params, keys, batch.image, batch.label, mode=self.bn)
        )

    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        """CE on the adversarial images."""
        logits, stats = net.train(params, crafted.x_adv)
        loss = jax.vmap(losses.cross_entropy)(logits, batch.target).mean()
        return loss, Aux(stats, {"robust_accuracy": accuracy(logits, batch.label)})
