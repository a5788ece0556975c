"""Adversarial vertex mixup: train between the image and a point beyond its adversarial one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax import losses
from robustjax.config import config, number, static
from robustjax.training.methods.base import Aux, Batch, Crafted, accuracy, cross_entropy
from robustjax.training.methods.pgd_at import BNMode, OnAttack
from robustjax.training.net import Net


@config
class AVmixup(OnAttack):
    """min E CE(z(a x + (1 - a) v), a t + (1 - a) s), v = clip(x + gamma (x_adv - x)), a ~ U(0, 1).

    s is the smoothed label of the vertex v, which lies in the box but beyond the ball, and t that
    of the image: the recipe's label smoothing, none in the paper. Soft labels flatten the loss:
    evaluate the trained model with more than PGD.

    Attributes:
      attack: on the cross-entropy.
      bn: 'batch' as in the authors' code: only the mixed batch commits statistics.
      gamma: how far the vertex is, 1 being the adversarial image.
      vertex: the label's share in s, the others' being equal. With ten classes the authors'
        0.1 carries no information about the class.

    References: Lee et al., "Adversarial vertex mixup: toward better adversarially robust
      generalization", CVPR 2020, algorithm 1.

    >>> image, vertex, target = jnp.zeros((1, 1, 1)), jnp.full((1, 1, 1), 0.1), jnp.eye(2)[0]
    >>> x, t = AVmixup(vertex=0.5).mix(0.5, image, vertex, target, 0)
    >>> round(float(x[0, 0, 0]), 3), [round(float(v), 3) for v in t]
    (0.1, [0.75, 0.25])
    """

    bn: BNMode = static(default="batch")
    gamma: float = number(default=2.0)
    vertex: float = number(default=0.1, low=0, high=1)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """The mixed images, and in `extra` their targets (B, K)."""
        crafted = super().perturb(net, params, batch, keys)
        share = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, MIX)))(keys)
        images, targets = jax.vmap(self.mix)(
            share, batch.image, crafted.x_adv, batch.target, batch.label
        )
        return Crafted(images, crafted.stats, targets)

    def mix(
        self, share: jax.Array, x: jax.Array, x_adv: jax.Array, target: jax.Array, label: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """One example: a of the image (H, W, C) and its target (K,), 1 - a of the vertex's."""
        vertex = jnp.clip(x + self.gamma * (x_adv - x), 0, 1)
        soft = losses.smooth(label, target.size, 1 - self.vertex)
        return share * x + (1 - share) * vertex, share * target + (1 - share) * soft

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        logits, stats = net.train(params, crafted.x_adv)
        loss = cross_entropy(net, logits, batch.replace(target=crafted.extra)).mean()
        return loss, Aux(stats, {"robust_accuracy": accuracy(logits, batch.label)})


MIX = 3
"""Folded into an example's key for its share; no attack folds in this number."""
