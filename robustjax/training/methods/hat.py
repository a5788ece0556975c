"""Helper-based adversarial training: beyond the ball a natural network labels (Rade 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from typing_extensions import override

from robustjax import losses, models
from robustjax.attacks import PGD
from robustjax.config import config, number, static
from robustjax.training.methods.base import Aux, Batch, Crafted, cross_entropy
from robustjax.training.methods.trades import ATTACK, OnPrediction, forward_pair
from robustjax.training.net import Net
from robustjax.typing import Cost


@struct.dataclass
class Helper:
    """A trained network as a pytree that a checkpoint can hold: images (B, H, W, C) -> logits."""

    variables: Any
    forward: Callable[[Any, jax.Array], jax.Array] = struct.field(pytree_node=False)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits (B, K) under running statistics."""
        return self.forward(self.variables, images)


@config
class HAT(OnPrediction):
    """TRADES + gamma CE(z(x + reach (x_adv - x)), y_h), y_h a natural network's label of x_adv.

    The helper keeps the boundary from moving further out than robustness needs. It is a trained
    run, and stays fixed. x + reach (x_adv - x) may leave [0, 1], as in the authors' code.

    Attributes:
      helper: its run directory, of a model trained without an attack on the same data.
      beta: weight of the KL term; 2.5 with ResNet-18, 3.5 with extra data.
      gamma: weight of the helper's term.
      reach: 2, so that its images are at twice the attack's distance.
      attack: as in TRADES.

    References: Rade & Moosavi-Dezfooli, "Reducing excessive margin to achieve a better accuracy vs.
      robustness trade-off", ICLR 2022.

    >>> HAT(helper="runs/natural").loss_cost
    Cost(forwards=3, backwards=3)
    """

    helper: str = static(default="")
    beta: float = number(default=2.5)
    gamma: float = number(default=0.5)
    reach: float = number(default=2.0)
    attack: PGD = ATTACK

    @override
    def init_frozen(self, image_shape: Sequence[int], num_classes: int) -> Helper:
        if not self.helper:
            raise ValueError(
                "HAT needs a helper: name the run directory of a model that was trained on clean "
                "images (--helper RUN after `robustjax train natural --out RUN`)"
            )
        logits_fn, _, about = models.load(self.helper)
        theirs = (tuple(about["image_shape"]), about["model"]["num_classes"])
        if theirs != (tuple(image_shape), num_classes):
            raise ValueError(
                f"the helper {self.helper} has {theirs[1]} classes of images {theirs[0]}, not "
                f"{num_classes} of {tuple(image_shape)}; train one on the same data"
            )
        (variables,) = logits_fn.args
        return Helper(variables, logits_fn.func)

    @property
    @override
    def craft_cost(self) -> Cost:
        # That of TRADES, and the helper's prediction.
        own = super().craft_cost
        return Cost(own.forwards + 1, own.backwards)

    @property
    @override
    def loss_cost(self) -> Cost:
        # A clean and two adversarial passes.
        return Cost(3, 3)

    @override
    def perturb(self, net: Net, params: Any, batch: Batch, keys: jax.Array) -> Crafted:
        """As TRADES, and in `extra` the helper's labels (B,)."""
        crafted = super().perturb(net, params, batch, keys)
        return crafted.replace(extra=net.frozen(crafted.x_adv).argmax(-1))

    @override
    def loss(self, net: Net, params: Any, batch: Batch, crafted: Crafted) -> tuple[jax.Array, Aux]:
        clean, adversarial, aux = forward_pair(net, params, batch, crafted)
        beyond = batch.image + self.reach * (crafted.x_adv - batch.image)
        far, stats = net.train(params, beyond, aux.stats)
        natural = cross_entropy(net, clean, batch).mean()
        kl = jax.vmap(losses.kl)(adversarial, clean).mean()
        helped = jax.vmap(losses.cross_entropy)(far, crafted.extra).mean()
        metrics = aux.metrics | {
            "helper_accuracy": lax.stop_gradient(jnp.mean(crafted.extra == batch.label))
        }
        return natural + self.beta * kl + self.gamma * helped, Aux(stats, metrics)
