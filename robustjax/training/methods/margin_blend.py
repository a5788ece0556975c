"""Adversarial training whose cross-entropy turns into a margin loss (Pang et al., ICLR 2021)."""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax import losses
from robustjax.config import config, number, static
from robustjax.training.methods.base import Aux, Batch, Crafted, accuracy, cross_entropy
from robustjax.training.methods.pgd_at import OnAttack, climbing
from robustjax.training.net import Net
from robustjax.typing import Loss

Margin = Literal["dlr", "margin"]
SMALLEST_DIVISOR = 0.1
"""Of the ratio, in logits; the authors' 1e-12 bounds no gradient of training."""


@config
class MarginBlend(OnAttack):
    """min E (1 - b) CE(z(x_adv), t) + b M(z(x_adv), y), and x_adv maximises it too.

    b grows linearly over training, from 0 to `share`.

    Attributes:
      share: b at the end; 0.8 in the authors' code.
      loss_on_margins: M: the difference-of-logits ratio, or the margin of Carlini and Wagner.

    Differences from the authors' code: the ratio is divided by max(z_(1) - z_(3), 0.1), not by
    z_(1) - z_(3) + 1e-12, with which one image whose three largest logits tie has a gradient of up
    to 1e24, which destroys the weights.

    The ratio suits a network that is mostly right: where the label is not among the three largest
    logits, it falls as the largest, a wrong one, rises.

    References: Pang et al., "Bag of tricks for adversarial training", ICLR 2021, their code's
      use_DLRloss and use_CWloss.

    Raises:
      ValueError: a network with two classes, whose margin nothing bounds.

    Guarantees:
      Where logits tie, the loss and its gradient are of the size of the other images'.

    >>> MarginBlend(share=0.5, loss_on_margins="margin").attack.steps
    10
    """

    share: float = number(default=0.8, low=0, high=1)
    loss_on_margins: Margin = static(default="dlr")

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        attack = climbing(self.attack, BLENDS[self.loss_on_margins])
        target = batch.label, jnp.full(batch.label.shape, self.share * net.progress)
        return Crafted(*net.craft(attack, params, keys, batch.image, batch.label, target, self.bn))

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        logits, stats = net.train(params, crafted.x_adv)
        if logits.shape[-1] < 3:
            raise ValueError(
                "margin-blend needs 3 classes: with 2 there is no third logit to divide the margin "
                "by, and its loss has no lower bound"
            )
        ahead = jax.vmap(MARGINS[self.loss_on_margins])(logits, batch.label)
        share = self.share * net.progress
        blend = (1 - share) * cross_entropy(net, logits, batch) + share * ahead
        return blend.mean(), Aux(stats, {"robust_accuracy": accuracy(logits, batch.label)})


def blended(margin: Loss) -> Loss:
    """(logits (K,), (label, b)) -> (1 - b) CE + b M."""

    def loss(logits, target):
        label, share = target
        return (1 - share) * losses.cross_entropy(logits, label) + share * margin(logits, label)

    return loss


MARGINS = {"dlr": functools.partial(losses.dlr, least=SMALLEST_DIVISOR), "margin": losses.margin}
BLENDS = {name: blended(margin) for name, margin in MARGINS.items()}
