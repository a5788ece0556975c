"""The center loss: cross-entropy, and a pull towards running class means (Wen et al. 2016)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax import losses
from robustjax.config import config, number
from robustjax.training.methods.base import Aux, Batch, Crafted
from robustjax.training.methods.gsce import HeadMethod
from robustjax.training.net import Net


@config
class Center(HeadMethod):
    """CE + weight 1/2 ||z - c_y||^2, c_k the running centers of the features.

    No gradient moves the centers, but c_k <- c_k + rate sum_{y_i = k} (z_i - c_k) / (1 + n_k) over
    the n_k examples of class k in the batch, all devices together. They start at 0. Predictions
    and the loss that crafts are the softmax's alone; the pull takes no part in either.

    Attributes:
      weight: lambda; 0.008 in the authors' code.
      rate: alpha, how far the centers move.

    References: Wen et al., "A discriminative feature learning approach for deep face recognition",
      ECCV 2016, Eq. 2 to 5.

    >>> Center(weight=0.01).model
    {'head': 'center', 'feature_dim': 64}
    """

    head = "center"
    weight: float = number(default=0.008)
    rate: float = number(default=0.5, low=0, high=1)

    @override
    def criterion(self, output: Any, target: jax.Array) -> jax.Array:
        return losses.cross_entropy(output, target)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        (z, logits), stats = net.forward(params, crafted.x_adv, "commit", method="both")
        (centers,) = jax.tree.leaves(net.stats["centers"])
        pull = jax.vmap(losses.center_pull, (0, None, 0))(z, centers, batch.label).mean()
        loss = jax.vmap(self.criterion)(logits, batch.target).mean() + self.weight * pull
        moved = self.move(net, centers, z, batch.label)
        stats = stats | {"centers": jax.tree.map(lambda _: moved, stats["centers"])}
        return loss, Aux(stats, self.metrics(logits, batch))

    def move(self, net: Net, centers: jax.Array, z: jax.Array, label: jax.Array) -> jax.Array:
        """The centers (K, D) after the features z (B, D) of these labels (B,), on all devices."""
        member = jax.nn.one_hot(label, len(centers))
        total = net.sum(jnp.dot(member.T, z, precision=jax.lax.Precision.HIGHEST))
        count = net.sum(member.sum(0))[:, None]
        return centers + self.rate * (total - count * centers) / (1 + count)
