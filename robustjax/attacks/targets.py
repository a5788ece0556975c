"""Which class an attack goes towards, or away from, when the caller gives no target."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from robustjax.losses import GIVEN_TARGETS, PAIRED
from robustjax.typing import Loss

WrongLabel = Literal["true", "predicted", "least_likely", "random", "ranked"]
"""Those of a search for the nearest adversarial image: away from y, or towards another class."""
Label = Literal[WrongLabel, "any"]
TARGETED = ("least_likely", "random", "any", "ranked")
"""The labels that are classes to go towards."""


def choose(
    label: Label, logits: jax.Array, key: jax.Array, y: jax.Array, rank: int | jax.Array = 1
) -> jax.Array:
    """A class () from the logits (K,) of the clean image.

    Args:
      label: 'true' is y; 'predicted' the model's own prediction (no label leaking); 'least_likely'
        the smallest logit (Kurakin et al. 2017); 'random' a uniformly random wrong class; 'any' a
        uniformly random class, be it the true one (the targets of Pang et al. 2020's training);
        'ranked' the `rank`-th largest logit among the wrong classes.
      logits: (K,), of the clean image.
      key: for 'random' and 'any'.
      y: () the true label.
      rank: from 1, the most likely wrong class, to K - 1; may be traced. Beyond K - 1 it is K - 1.
    """
    if label == "true":
        return y
    if label == "predicted":
        return jnp.argmax(logits)
    if label == "least_likely":
        return jnp.argmin(logits)
    if label == "random":
        return (y + jax.random.randint(key, (), 1, logits.size)) % logits.size
    if label == "any":
        return jax.random.randint(key, (), 0, logits.size)
    wrong = jnp.where(jnp.arange(logits.size) == y, -jnp.inf, logits)
    return jnp.argsort(wrong, descending=True)[jnp.minimum(rank, logits.size - 1) - 1]


def aim(
    loss: Loss,
    label: Label,
    logits: jax.Array,
    key: jax.Array,
    y: jax.Array,
    rank: int | jax.Array = 1,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """What `loss` is given when the caller gives no target; a paired loss gets y beside it."""
    chosen = choose(label, logits, key, y, rank)
    return (y, chosen) if loss in PAIRED else chosen


def sense(loss: Loss, label: Label, targeted: bool = False) -> int:
    """+1 if an attack ascends the loss, -1 if it descends it towards a class."""
    return -1 if (targeted or label in TARGETED) and loss not in PAIRED else 1


def check_aim(loss: Loss, label: Label, targeted: bool = False, redraw: bool = False) -> None:
    """Raise ValueError if an attack cannot do without a target that the caller gives.

    Nor can it draw a class anew that is not drawn.
    """
    paired = loss in PAIRED and label in TARGETED
    if loss in GIVEN_TARGETS and not paired:
        raise ValueError(
            f"the loss {loss.__name__} needs a target, {GIVEN_TARGETS[loss]}: pass one, or choose "
            "a loss of the label: cross_entropy, margin or dlr"
        )
    if targeted and label == "true":
        raise ValueError(
            "a targeted attack needs a target: pass one, or set label to 'least_likely' or 'random'"
        )
    if redraw and label not in ("random", "any"):
        raise ValueError(
            f"redraw draws a class anew, which label {label!r} is not: set it to 'any' or "
            "'random', or leave redraw off"
        )
