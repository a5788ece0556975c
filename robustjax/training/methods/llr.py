"""Local linearity regularisation: a loss that is linear around each image (Qin et al. 2019)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from typing_extensions import override

from robustjax import losses
from robustjax.attacks import PGD
from robustjax.attacks.steps import Adam
from robustjax.config import config, number, static
from robustjax.training.methods.base import Aux, Batch, Crafted, Method, accuracy, cross_entropy
from robustjax.training.methods.pgd_at import climbing
from robustjax.training.methods.trades import check_start
from robustjax.training.net import Net
from robustjax.typing import Cost

ATTACK = PGD(step_size=0.1, rule=Adam(drop=1.0))
"""Ten steps of Adam of 0.1, from a uniform start."""


@config
class LLR(Method):
    """min E natural CE(z(x), t) + weight (g(d) + slope |d . grad l(x)|), d maximising g.

    g(d) = |l(x + d) - l(x) - d . grad l(x)| is how far the loss l is from linear at x. There is no
    adversarial cross-entropy. Near x the model sees the statistics of the clean batch, and
    no gradient is stopped: that of the image is differentiated again, so use a smooth
    activation (`softplus`). Gradients of x are those of the batch's summed loss.

    Attributes:
      natural: weight of the clean cross-entropy; 2 in the authors' code.
      weight: of the regulariser, lambda; 4 in the authors' code.
      slope: of its second term, in it; 0.3 in the authors' code.
      attack: its threat, steps, start and rule; g is what it maximises, whatever loss it names.
      plane_moves: the attack's gradient is that of g, which the paper maximises: a difference of
        two gradients of l. False: the tangent plane's share of it is stopped, as in the authors'
        code, and the attack follows +-grad l(x + d) to smaller gaps.

    References: Qin et al., "Adversarial robustness through local linearization", NeurIPS 2019,
      Eq. 8.

    >>> LLR(weight=4.0).loss_cost
    Cost(forwards=4, backwards=4)
    """

    natural: float = number(default=2.0)
    weight: float = number(default=4.0)
    slope: float = number(default=0.3)
    attack: PGD = ATTACK
    plane_moves: bool = static(default=True)

    def __post_init__(self):
        check_start(self.attack)

    @property
    @override
    def craft_cost(self) -> Cost:
        # The attack's, and the tangent planes.
        return Cost(self.attack.cost.forwards + 1, self.attack.cost.backwards + 1)

    @property
    @override
    def loss_cost(self) -> Cost:
        # The clean pass, the one nearby, and about two for a gradient that is differentiated.
        return Cost(4, 4)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        plane, stats = lax.stop_gradient(tangent(net, params, batch))
        attack = climbing(self.attack, gap if self.plane_moves else still_gap)
        x_adv, _ = net.replace(stats=stats).craft(
            attack, params, keys, batch.image, batch.label, plane, with_image=True
        )
        return Crafted(x_adv, net.stats)

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        clean, committed = net.train(params, batch.image)
        plane, stats = tangent(net, params, batch)
        near = net.logits(params, crafted.x_adv, stats)
        gaps = jax.vmap(gap)((near, crafted.x_adv), plane)
        slopes = jnp.abs(jax.vmap(rise)(crafted.x_adv, plane))
        natural = cross_entropy(net, clean, batch)
        loss = (self.natural * natural + self.weight * (gaps + self.slope * slopes)).mean()
        metrics = {
            "accuracy": accuracy(clean, batch.label),
            "robust_accuracy": accuracy(near, batch.label),
            "gap": gaps.mean(),
        }
        return loss, Aux(committed, lax.stop_gradient(metrics))


def tangent(net: Net, params: Any, batch: Batch) -> tuple[Any, Any]:
    """The losses' tangent planes at a batch's images, and the batch's own statistics.

    Dropout, if the model has any, is off: it is where the plane is compared with the loss.

    Returns:
      ((images, targets, losses (B,), gradients), statistics).
    """
    net = net.replace(draws=None)

    def objective(logits):
        return jax.vmap(losses.cross_entropy)(logits, batch.target)

    gradient, value, stats = net.image_gradient(params, batch.image, objective, "capture")
    return (batch.image, batch.target, value, gradient), stats


def rise(image: jax.Array, plane: Any) -> jax.Array:
    """How far a tangent plane rises from its own image to this one, (image - x) . grad l(x)."""
    x, _, _, gradient = plane
    return jnp.sum((image - x) * gradient)


def gap(output: tuple[jax.Array, jax.Array], plane: Any) -> jax.Array:
    """g: how far the loss of (logits, image) is from the tangent plane."""
    logits, image = output
    _, target, value, _ = plane
    return jnp.abs(losses.cross_entropy(logits, target) - value - rise(image, plane))


def still_gap(output: tuple[jax.Array, jax.Array], plane: Any) -> jax.Array:
    """g, whose gradient takes the tangent plane as if it did not rise with the image."""
    logits, image = output
    return gap((logits, lax.stop_gradient(image)), plane)
