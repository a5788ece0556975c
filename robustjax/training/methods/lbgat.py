"""Learnable boundary guided training: a natural network guides and learns alongside (Cui 2021)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.config import config, number, static
from robustjax.training.methods.base import Aux, Batch, Crafted, accuracy, cross_entropy
from robustjax.training.methods.trades import ATTACK, OnPrediction
from robustjax.training.net import Net
from robustjax.typing import Cost


@config
class LBGAT(OnPrediction):
    """min E mean_k (z(x_adv) - z_T(x))_k^2 + CE(z_T(x), t) + beta KL(p(x) || p(x_adv)).

    z_T is the teacher's, a second network trained on clean images at the same time by the same
    optimiser; gradients of the square flow into both. The attack is that of TRADES, and sees the
    network alone. The teacher's weights lie among the model's, so the moving average, weight decay
    and AWP apply to them too; evaluation does not run them. BatchNorm sees the
    adversarial images first, then the clean ones; the teacher's sees the clean ones.

    The square moves the teacher's head too, and further with more features: with a ResNet-18 as
    the teacher and a learning rate of 0.1 the loss stops being finite within ten steps, in PyTorch
    as well. The authors begin with 0.02: use an epoch of `--lr-warmup`.

    Attributes:
      teacher: a name that `models.create` knows; it has a linear head and its own default width.
      beta: weight of the KL term; the paper's 0 or 6.
      attack: as in TRADES.

    References: Cui et al., "Learnable boundary guided adversarial training", ICCV 2021.

    >>> LBGAT(teacher="preact-resnet-18").model
    {'teacher': 'preact-resnet-18'}
    """

    teacher: str = static(default="resnet-18")
    beta: float = number(default=0.0)
    attack: PGD = ATTACK

    @property
    @override
    def model(self) -> dict[str, Any]:
        return {"teacher": self.teacher}

    @property
    @override
    def loss_cost(self) -> Cost:
        # Both networks' clean passes and the adversarial one, the teacher's counted as one.
        return Cost(3, 3)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        adversarial, stats = net.train(params, crafted.x_adv)
        clean, stats = net.train(params, batch.image, stats)
        guide, stats = net.forward(params, batch.image, "commit", stats, method="taught")
        distance = jnp.mean((adversarial - guide) ** 2)
        natural = cross_entropy(net, guide, batch).mean()
        kl = jax.vmap(losses.kl)(adversarial, clean).mean()
        metrics = {
            "accuracy": accuracy(clean, batch.label),
            "robust_accuracy": accuracy(adversarial, batch.label),
            "teacher_accuracy": accuracy(guide, batch.label),
        }
        return distance + natural + self.beta * kl, Aux(stats, lax.stop_gradient(metrics))
