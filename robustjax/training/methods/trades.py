"""TRADES: clean accuracy plus agreement with the neighbourhood (Zhang et al., ICML 2019)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
from jax import lax

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.attacks.starts import Gaussian, Zero
from robustjax.config import check_choice, config, number, static
from robustjax.training.methods.base import (
    Aux,
    Batch,
    Crafted,
    Method,
    accuracy,
    check_type,
    cross_entropy,
)
from robustjax.training.methods.pgd_at import BNMode
from robustjax.training.net import Net
from robustjax.typing import Cost, Loss

ATTACK = PGD(start=Gaussian(1e-3))
"""Ten steps from a point near x, as in the authors' code."""

Aim = Literal["prediction", "target"]
Commit = Literal["both", "adversarial"]


class OnPair(Method):
    """What compares clean and adversarial images in its loss: a pass over each."""

    @property
    def loss_cost(self) -> Cost:
        """A clean and an adversarial pass."""
        return Cost(2, 2)


@config
class TRADES(OnPair):
    """min E CE(z(x), t) + beta KL(p(x) || p(x_adv)), x_adv maximising the KL.

    Gradients flow through both p(x) and p(x_adv). The clean forward commits BatchNorm statistics
    first, the adversarial one second; the authors' code repeats the clean one for the KL, which
    changes no gradient but commits a third time. With extra data this is RST (Carmon et al. 2019),
    whose code commits in the other order.

    Attributes:
      beta: weight of the KL term (1 / lambda in the paper).
      attack: its threat, steps, start and rule; whatever loss it names, the KL to z(x) is what it
        maximises. It must not start at x, where the KL is flat.
      bn: BatchNorm's mode while crafting: 'running', 'batch' or 'commit'.
      commits: which of the loss's forwards move the running statistics: 'both', or the
        'adversarial' one alone (Gowal et al. 2020), the clean one then being normalised by its
        batch.
      aim: what the attack leaves: the clean 'prediction', or the 'target' by its cross-entropy, as
        Rebuffi et al. (2021) do with CutMix.

    References: Zhang et al., ICML 2019, eq. (5).
    """

    beta: float = number(default=6.0)
    attack: PGD = ATTACK
    bn: BNMode = static(default="running")
    commits: Commit = static(default="both")
    aim: Aim = static(default="prediction")

    def __post_init__(self):
        check_start(self.attack)
        for name, choices in (("bn", BNMode), ("commits", Commit), ("aim", Aim)):
            check_choice(name, getattr(self, name), choices)

    @property
    def craft_cost(self) -> Cost:
        """The attack's, and the clean prediction."""
        forwards = self.attack.cost.forwards + (self.aim == "prediction")
        return Cost(forwards, self.attack.cost.backwards)

    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """Move the prediction as far from the clean one as the threat allows."""
        if self.aim == "target":
            loss, reference = losses.cross_entropy, batch.target
        else:
            loss, reference = losses.kl, clean_logits(net, params, batch, self.bn)
        return depart(net, self.attack, params, batch, keys, loss, reference, self.bn)

    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        """CE + beta KL."""
        clean, adversarial, aux = forward_pair(net, params, batch, crafted, self.commits)
        natural = cross_entropy(net, clean, batch).mean()
        kl = jax.vmap(losses.kl)(adversarial, clean).mean()
        return natural + self.beta * kl, aux


def clean_logits(net: Net, params: Any, batch: Batch, bn: BNMode) -> jax.Array:
    """The prediction to depart from, under the statistics that the attack sees; none move."""
    return net.forward(params, batch.image, "running" if bn == "running" else "batch")[0]


def depart(
    net: Net,
    attack: PGD,
    params: Any,
    batch: Batch,
    keys: jax.Array,
    loss: Loss,
    reference: Any,
    bn: BNMode = "running",
) -> Crafted:
    """Maximise loss(z, reference), whatever loss the attack names."""
    attack = dataclasses.replace(attack, loss=loss, label="true", targeted=False)
    return Crafted(*net.craft(attack, params, keys, batch.image, batch.label, reference, bn))


def check_start(attack: PGD) -> None:
    """Raise ValueError unless this is a PGD that can climb what is flat at x, as a KL to z(x)."""
    check_type("attack", attack, PGD)
    if isinstance(attack.start, Zero):
        raise ValueError(
            "what the attack maximises has no gradient at the clean image: start it elsewhere, as "
            "in PGD(start=Gaussian(1e-3))"
        )


def forward_pair(
    net: Net, params: Any, batch: Batch, crafted: Crafted, commits: Commit = "both"
) -> tuple[jax.Array, jax.Array, Aux]:
    """Train-mode logits of the clean and the adversarial images, committed in this order."""
    clean, stats = net.forward(params, batch.image, "commit" if commits == "both" else "batch")
    adversarial, stats = net.train(params, crafted.x_adv, stats)
    metrics = {
        "accuracy": accuracy(clean, batch.label),
        "robust_accuracy": accuracy(adversarial, batch.label),
    }
    return clean, adversarial, Aux(stats, lax.stop_gradient(metrics))
