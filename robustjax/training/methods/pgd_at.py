"""Adversarial training on the examples of one attack (Madry et al. 2018; Rice et al. 2020)."""

from __future__ import annotations

from typing import Any, Literal

import jax

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.config import config, static
from robustjax.training.methods.base import Aux, Batch, Crafted, Method, accuracy
from robustjax.training.net import Net
from robustjax.typing import Loss


@config
class PGDAT(Method):
    """min E L(z(x_adv), t), x_adv from the attack; adversarial examples only.

    Attributes:
      attack: ten sign steps of eps / 4 from a uniform start, eps 8/255. One step of 1.25 eps makes
        it Fast AT's FGSM-RS (Wong et al. 2020).
      bn: BatchNorm's mode while crafting: 'running' (eval mode, the baseline of Pang et al. 2021),
        'batch', or 'commit' (train mode: every attack step moves the statistics; Madry, Rice).
      objective: the outer loss.

    References: Madry et al., ICLR 2018; Rice et al., ICML 2020; Pang et al., ICLR 2021.
    """

    attack: PGD = PGD()
    bn: Literal["running", "batch", "commit"] = static("running")
    objective: Loss = static(losses.cross_entropy)

    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """Maximise the attack's loss within the threat."""
        return Crafted(
            *net.craft(self.attack, params, keys, batch.image, batch.label, mode=self.bn)
        )

    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        """L on the adversarial images."""
        logits, stats = net.train(params, crafted.x_adv)
        loss = jax.vmap(self.objective)(logits, batch.target).mean()
        return loss, Aux(stats, {"robust_accuracy": accuracy(logits, batch.label)})
