"""Triplet loss adversarial training: features near their class, away from others (Mao 2019)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from typing_extensions import override

from robustjax.attacks import PGD
from robustjax.config import config, number
from robustjax.deterministic import ordered_sum
from robustjax.models.heads import directions
from robustjax.training.methods.base import Aux, Batch, Crafted, accuracy, cross_entropy
from robustjax.training.methods.pgd_at import OnAttack
from robustjax.training.net import Net
from robustjax.typing import Cost

ATTACK = PGD(steps=7, rel_step=1.75)
"""Seven sign steps of eps / 4 from a uniform start, eps 8/255."""


@config
class TLA(OnAttack):
    """min E CE(z(x_adv), t) + weight (T(f(x_adv), f(x~), f(x-)) + T(f(x_adv), f(x+), f(x-))).

    T(a, p, n) = [D(a, p) - D(a, n) + margin]_+ + norm mean_k (a_k^2 + p_k^2 + n_k^2) with
    D = 1 - |cos| of the features f that the head sees. x~ is x with uniform noise as large as the
    attack's threat, x+ another image of the class, x- the image of another class whose features,
    under running statistics, have the largest cosine with those of x_adv. All four forwards commit
    BatchNorm statistics: x_adv, x~, x-, x+.

    The authors draw x- from ten times as many other images as the batch has, and x+ from the whole
    training set. Here both come from the batch itself, all devices together: less hard negatives
    at a tenth of the mining, and an image whose class is alone in the batch is its own x+. A
    batch must hold two classes. Two details of their code are left out: it rounds x~ to whole pixel
    values, and gives images of the same class a cosine of 0 in the search, so that one of these may
    be x-.

    Attributes:
      attack: seven sign steps of eps / 4 from a uniform start, eps 8/255.
      weight: of the triplets; 2 in the paper's CIFAR-10.
      margin: 0.03.
      norm: weight of the features' squares in each triplet; 1e-3 in the authors' code.

    References: Mao et al., "Metric learning for adversarial robustness", NeurIPS 2019, Eq. 3 to 5.

    >>> TLA(weight=2.0).loss_cost
    Cost(forwards=4, backwards=4)
    """

    attack: PGD = ATTACK
    weight: float = number(default=2.0)
    margin: float = number(default=0.03)
    norm: float = number(default=1e-3)

    @property
    @override
    def craft_cost(self) -> Cost:
        # The attack's, and the features of both sides of the search.
        return Cost(self.attack.cost.forwards + 2, self.attack.cost.backwards)

    @property
    @override
    def loss_cost(self) -> Cost:
        # Four passes.
        return Cost(4, 4)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """The attack's images; in `extra` x~, x- and x+."""
        keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
        crafted = super().perturb(net, params, batch, keys[:, 0])
        noisy = jax.vmap(self.attack.threat.sample)(keys[:, 1], batch.image)

        def features(images):
            return net.forward(params, images, method="features")[0]

        pool = net.gather((batch.image, batch.label, features(batch.image)))
        place, _ = net.position(len(batch.label))
        negative, positive = jax.vmap(negative_and_positive, (0, 0, 0, 0, None, None))(
            keys[:, 2], place, features(crafted.x_adv), batch.label, *pool[1:]
        )
        return lax.stop_gradient(
            crafted.replace(extra=(noisy, pool[0][negative], pool[0][positive]))
        )

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        (anchor, logits), stats = net.forward(params, crafted.x_adv, "commit", method="both")
        embedded = []
        for images in crafted.extra:
            z, stats = net.forward(params, images, "commit", stats, method="features")
            embedded.append(z)
        own, negative, positive = embedded
        triplets = self.triplet(anchor, own, negative) + self.triplet(anchor, positive, negative)
        loss = (cross_entropy(net, logits, batch) + self.weight * triplets).mean()
        return loss, Aux(stats, {"robust_accuracy": accuracy(logits, batch.label)})

    def triplet(self, anchor: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
        """T (B,) of features (B, D)."""
        near, far = jnp.abs(cosine(anchor, positive)), jnp.abs(cosine(anchor, negative))
        squares = (anchor**2 + positive**2 + negative**2).mean(-1)
        return jax.nn.relu(far - near + self.margin) + self.norm * squares


def negative_and_positive(
    key: jax.Array,
    place: jax.Array,
    anchor: jax.Array,
    label: jax.Array,
    labels: jax.Array,
    features: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The places of the hardest negative and of a random positive in a pool.

    Args:
      key: for the positive.
      place: () where the example itself is in the pool.
      anchor: (D,) its features.
      label: () its class.
      labels: (N,) of the pool.
      features: (N, D) of the pool.
    """
    same, themselves = labels == label, jnp.arange(len(labels)) == place
    similar = cosine(anchor[None], features)
    negative = jnp.argmax(jnp.where(same, -jnp.inf, similar))
    draw = jax.random.uniform(key, labels.shape)
    positive = jnp.argmax(jnp.where(themselves, 0, jnp.where(same, 1 + draw, -1)))
    return negative, positive


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Of the rows of (N, D) and (N, D), or of one row and each of the others; 0 with a row of 0."""
    return ordered_sum((directions(a) * directions(b)).T)
