"""TRADES: clean accuracy plus agreement with the neighbourhood (Zhang et al., ICML 2019)."""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
from jax import lax
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.attacks.starts import Gaussian, Zero
from robustjax.config import config, number, static
from robustjax.training.methods.base import (
    Aux,
    Batch,
    Crafted,
    Method,
    accuracy,
    label_margin,
)
from robustjax.training.methods.pgd_at import BNMode, climbing
from robustjax.training.net import Net
from robustjax.typing import Cost, Loss

ATTACK = PGD(start=Gaussian(1e-3))
"""Ten steps from a point near x, as in the authors' code."""

OF_A_LABEL = frozenset(losses.NAMED.values()) - {losses.kl, losses.squared_error}
"""Our losses that compare an output with a label, not with another output."""

AwayFrom = Literal["prediction", "target"]
Commit = Literal["both", "adversarial"]


class OnPair(Method):
    """Compares clean and adversarial images in its loss, with a pass over each."""

    @property
    @override
    def loss_cost(self) -> Cost:
        return Cost(2, 2)


class OnPrediction(OnPair):
    """Crafts as TRADES does: away from the clean prediction."""

    attack: PGD

    def __post_init__(self):
        check_start(self.attack)

    @property
    def crafting(self) -> TRADES:
        """The method that crafts."""
        return TRADES(attack=self.attack)

    @property
    @override
    def craft_cost(self) -> Cost:
        return self.crafting.craft_cost

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        return self.crafting.perturb(net, params, batch, keys)


@config
class TRADES(OnPair):
    """min E CE(z(x), t) + beta D(z(x_adv), z(x)), x_adv maximising D; D is KL(p(x) || p(x_adv)).

    Gradients flow through both p(x) and p(x_adv). The clean forward commits BatchNorm statistics
    first, the adversarial one second; the authors' code repeats the clean one for the KL, which
    changes no gradient but commits a third time. With extra data this is RST (Carmon et al. 2019),
    whose code commits in the other order.

    Attributes:
      beta: weight of the consistency term (1 / lambda in the paper).
      attack: its threat, steps, start and rule; it maximises D whatever loss it names itself. It
        must not start at x, where the KL is flat.
      bn: BatchNorm's mode while crafting: 'running', 'batch' or 'commit'.
      commits: the forwards in the loss that move the running statistics: 'both', or the
        'adversarial' one alone (Gowal et al. 2020), the clean one then being normalised by its
        batch.
      away_from: what the attack moves the output away from: the clean 'prediction' by D, or the
        'target' by its cross-entropy, as Rebuffi et al. (2021) do with CutMix.
      consistency: D, a function of two logits (K,), the adversarial ones first: `losses.kl`,
        `losses.squared_error` or your own.

    References: Zhang et al., ICML 2019, eq. (5).

    >>> TRADES(attack=PGD(rj.threats.L2(0.5), steps=7, start=Gaussian(1e-3))).craft_cost
    Cost(forwards=8, backwards=7)
    """

    beta: float = number(default=6.0)
    attack: PGD = ATTACK
    bn: BNMode = static(default="running")
    commits: Commit = static(default="both")
    away_from: AwayFrom = static(default="prediction")
    consistency: Loss = static(default=losses.kl)

    def __post_init__(self):
        check_start(self.attack)
        if self.consistency in OF_A_LABEL:
            raise ValueError(
                "consistency compares two outputs, by kl, squared_error or a function of your own; "
                f"{self.consistency.__name__} compares one with a label"
            )

    @property
    @override
    def craft_cost(self) -> Cost:
        # The attack's, and the clean prediction.
        forwards = self.attack.cost.forwards + (self.away_from == "prediction")
        return Cost(forwards, self.attack.cost.backwards)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        if self.away_from == "target":
            loss, reference = losses.cross_entropy, batch.target
        else:  # the prediction under the statistics that the attack sees; none move
            mode = "running" if self.bn == "running" else "batch"
            loss, reference = self.consistency, net.forward(params, batch.image, mode)[0]
        attack = climbing(self.attack, loss)
        return Crafted(
            *net.craft(attack, params, keys, batch.image, batch.label, reference, self.bn)
        )

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        clean, adversarial, aux = forward_pair(net, params, batch, crafted, self.commits)
        loss = functools.partial(losses.trades, beta=self.beta, consistency=self.consistency)
        margin = label_margin(net, batch)
        return jax.vmap(loss)(clean, adversarial, batch.target, margin=margin).mean(), aux


def check_start(attack: PGD) -> None:
    """Raise ValueError if the attack starts where what it climbs is flat: at x, as a KL to z(x)."""
    if isinstance(attack, PGD) and isinstance(attack.start, Zero):
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
