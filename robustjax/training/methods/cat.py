"""Customized adversarial training: each example has its own radius (Cheng et al. 2020)."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.config import config, number, static
from robustjax.threats import radius, with_radius
from robustjax.training.methods.base import (
    Aux,
    Batch,
    Crafted,
    Method,
    accuracy,
    cross_entropy,
)
from robustjax.training.methods.pgd_at import ATTACK, climbing
from robustjax.training.net import Net
from robustjax.typing import Cost

Variant = Literal["paper", "repo-v2", "repo-v1"]


@config
class CAT(Method):
    """min E CE(z(x_adv), t) + margin eps_i [max_{j != y} z_j - z_y + kappa]_+, x_adv within eps_i.

    t = (1 - c eps_i) onehot + c eps_i Dirichlet(1), drawn once for the attack and once for the
    loss. The rows are the radii eps_i (N,), which start at 0 and grow by eta at every visit, up to
    the threat's eps. The paper and two versions of the authors' code then differ:

    paper: the attack maximises CE(z, t). The growth is undone where it succeeds.
    repo-v2: the attack maximises CE(z, t) + margin eps_i min(max_{j != y} z_j - z_y, kappa). Where
      it fails eta is taken off, also at the threat's eps: such an example comes back to eps - eta.
    repo-v1: the same attack. Where it fails x_adv is x, and eps_i becomes the distance of x_adv.

    Attributes:
      attack: its threat, steps, start and rule; the variant says what it maximises.
      variant: see above.
      eta: growth, pixels; 0.005 in the paper, 0.0025 in repo-v2 (eps 0.035, no random start), 0.03
        in repo-v1 (eps 0.06).
      smoothing: c.
      margin: weight of the margin terms; 0 is CAT-CE. The authors' sum over a batch of 128 is 128.
      kappa: of the margin terms.

    References: Cheng et al., "CAT: customized adversarial training for improved robustness", 2020,
      algorithm 1. Their code compares predictions with the largest entry of t; here, with y.

    >>> CAT().init_rows(jnp.array([3, 1]), num_classes=10)  # radii
    Array([0., 0.], dtype=float32)
    """

    attack: PGD = ATTACK
    variant: Variant = static(default="paper")
    eta: float = number(default=0.005)
    smoothing: float = number(default=10.0)
    margin: float = number(default=128.0)
    kappa: float = number(default=10.0)

    @override
    def init_rows(self, labels: jax.Array, num_classes: int) -> jax.Array:
        return jnp.zeros(len(labels))

    @property
    @override
    def craft_cost(self) -> Cost:
        # The attack's, and a look at what it did.
        return Cost(self.attack.cost.forwards + 1, self.attack.cost.backwards)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """The images, and in `extra` (the new radii (B,), the loss's targets (B, K))."""
        eps = jnp.minimum(batch.rows + self.eta, radius(self.attack.threat))
        threat = with_radius(self.attack.threat, eps)
        target = self.targets(keys, FIRST, batch, eps)
        attack = climbing(self.attack, losses.cross_entropy, threat=threat)
        if self.variant != "paper":
            attack = climbing(self.attack, mixed, threat=threat)
            ceiling = jnp.full_like(eps, self.kappa)
            target = target, batch.label, self.margin * eps, ceiling
        x_adv, stats = net.craft(attack, params, keys, batch.image, batch.label, target)
        fooled = net.logits(params, x_adv).argmax(-1) != batch.label
        if self.variant == "repo-v1":
            x_adv = jnp.where(fooled.reshape(-1, 1, 1, 1), x_adv, batch.image)
            new = jax.vmap(self.attack.threat.distance)(x_adv, batch.image)
        elif self.variant == "repo-v2":
            new = jnp.where(fooled, eps, jnp.maximum(eps - self.eta, 0))
        else:
            new = jnp.where(fooled, jnp.minimum(batch.rows, eps), eps)
        return Crafted(x_adv, stats, (new, self.targets(keys, SECOND, batch, new)))

    def targets(self, keys: jax.Array, number: int, batch: Batch, radius: jax.Array) -> jax.Array:
        """Targets (B, K), softer the larger the radius (B,)."""
        share = jnp.minimum(self.smoothing * radius, 1)[:, None]

        def draw(key):
            key = jax.random.fold_in(key, number)
            lengths = jax.random.exponential(key, batch.target.shape[-1:])
            return lengths / lengths.sum()  # Dirichlet(1)

        return (1 - share) * batch.target + share * jax.vmap(draw)(keys)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        radius, targets = crafted.extra
        logits, stats = net.train(params, crafted.x_adv)
        ce = cross_entropy(net, logits, batch.replace(target=targets))
        hinge = jax.nn.relu(jax.vmap(losses.margin)(logits, batch.label) + self.kappa)
        metrics = {"robust_accuracy": accuracy(logits, batch.label), "radius": radius.mean()}
        return (ce + self.margin * radius * hinge).mean(), Aux(stats, metrics, rows=radius)


def mixed(output: Any, target: tuple[jax.Array, ...]) -> jax.Array:
    """CE(z, t) + weight min(max_{j != y} z_j - z_y, ceiling): what the authors' attack maximises.

    Args:
      output: logits (K,).
      target: (t (K,), y (), weight (), ceiling ()).
    """
    soft, label, weight, ceiling = target
    ahead = jnp.minimum(losses.margin(output, label), ceiling)
    return losses.cross_entropy(output, soft) + weight * ahead


FIRST, SECOND = 3, 4
"""Folded into an example's key for its draws; no attack folds in these numbers."""
