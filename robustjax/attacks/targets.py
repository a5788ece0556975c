"""Which class an attack leaves or goes to, and what it maximises to that end.

A `Target` chooses the class where the caller gives none. What the caller gives is where the attack
goes. A `Goal` is what comes of either: the loss with a sign, and what it is compared with.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import is_class
from robustjax.config import config, encode, number, rewrites_older, static
from robustjax.losses.compared import compared_with, name_of
from robustjax.outputs import logits_of
from robustjax.spec import KINDS, Names
from robustjax.typing import LogitsFn, Loss


class Target(abc.ABC):
    """A class for each example, chosen before the first step or at every step.

    A subclass says which, and may look at the model's whole output anywhere: its features too.

    Attributes:
      towards: the attack goes to the class; False: it leaves it.
      redraw: the class is chosen again at every step, with another key.
      forwards: the forward passes of one choice.

    >>> from robustjax.config import config
    >>> @config
    ... class Largest(Target):
    ...     def __call__(self, key, x, y, logits_fn):
    ...         return jnp.argmax(logits_fn(jnp.ones_like(x)))
    >>> int(Largest()(jax.random.key(0), jnp.zeros(3), 0, lambda x: 2 * x + jnp.arange(3.0)))
    2
    """

    towards: bool = True
    redraw: bool = False
    forwards: int = 1

    @abc.abstractmethod
    def __call__(
        self, key: jax.Array, x: jax.Array, y: jax.Array, logits_fn: LogitsFn
    ) -> jax.Array:
        """Choose a class.

        Args:
          key: a PRNG key of this example's own.
          x: (H, W, C), the clean image.
          y: () its label.
          logits_fn: the model of one image.

        Returns:
          () integer.
        """


@config
class TrueLabel(Target):
    """Away from the label."""

    towards = False
    forwards = 0

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, y: jax.Array, logits_fn: LogitsFn
    ) -> jax.Array:
        return y


@config
class Prediction(Target):
    """Away from the model's own prediction on the clean image: the label does not leak.

    References: Kurakin et al., "Adversarial machine learning at scale", ICLR 2017.
    """

    towards = False

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, y: jax.Array, logits_fn: LogitsFn
    ) -> jax.Array:
        return jnp.argmax(logits_of(logits_fn(x)))


@config
class LeastLikely(Target):
    """Towards the class with the smallest logit on the clean image.

    References: Kurakin et al., "Adversarial examples in the physical world", 2017.
    """

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, y: jax.Array, logits_fn: LogitsFn
    ) -> jax.Array:
        return jnp.argmin(logits_of(logits_fn(x)))


@config
class Ranked(Target):
    """Towards the `rank`-th most likely wrong class of the clean image.

    Attributes:
      rank: from 1 to K - 1; beyond K - 1 it is K - 1. May be traced.
    """

    rank: int = number(default=1, low=1)

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, y: jax.Array, logits_fn: LogitsFn
    ) -> jax.Array:
        classes = rivals(logits_of(logits_fn(x)), y)
        return classes[jnp.minimum(self.rank, len(classes)) - 1]


@config
class Random(Target):
    """Towards a uniformly random wrong class.

    Attributes:
      redraw: at every step another one.
      with_label: the label is one of the classes, as in the crafting of Pang et al. (2020). With
        `redraw` and the loss `multi_target` this is that of "Bag of Tricks" (Pang et al. 2021).
    """

    redraw: bool = static(default=False)
    with_label: bool = static(default=False)
    forwards = 0

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, y: jax.Array, logits_fn: LogitsFn
    ) -> jax.Array:
        classes = logits_of(jax.eval_shape(logits_fn, x)).size
        if self.with_label:
            return jax.random.randint(key, (), 0, classes)
        return (y + jax.random.randint(key, (), 1, classes)) % classes


NAMED: Names[Target] = Names(
    "target",
    {
        "true": TrueLabel(),
        "predicted": Prediction(),
        "least_likely": LeastLikely(),
        "random": Random(),
        "any": Random(with_label=True),
        "ranked": Ranked(),
    },
)
"""The targets by the names of `robustjax.spec`, such as 'ranked:rank=3'."""
KINDS[Target] = NAMED


@rewrites_older
def _from_label(known: Mapping[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Before there were targets an attack had a label, a rank, a switch to redraw and one more."""
    if "target" not in known or "label" not in fields:
        return fields
    old = ("label", "rank", "redraw", "targeted")
    target = NAMED.find(fields["label"])
    if isinstance(target, Ranked):
        target = Ranked(fields.get("rank", 1))
    if isinstance(target, Random):
        target = Random(fields.get("redraw", False), target.with_label)
    return {k: v for k, v in fields.items() if k not in old} | {"target": encode(target)}


def rivals(logits: jax.Array, y: jax.Array, most: int | None = None) -> jax.Array:
    """The wrong classes, the most likely ones first: (min(most, K - 1),) indices."""
    # The label comes last, behind classes whose logits are -inf too.
    finite = jnp.maximum(logits, jnp.finfo(logits.dtype).min)
    wrong = jnp.where(jnp.arange(logits.size) == y, -jnp.inf, finite)
    return jnp.argsort(wrong, descending=True)[: logits.size - 1][:most]


@config
class Goal:
    """What an attack maximises: +-loss(output, compared), a function of the model's output.

    Attributes:
      compared: what the loss compares the output with.
      loss: (output, compared) -> scalar.
      sign: -1 on the way to a class that the loss is compared with, else 1.
      forwards: the forward passes that it took to choose.
    """

    compared: Any
    loss: Loss = static()
    sign: int = static(default=1)
    forwards: int = static(default=0)

    def __call__(self, output: Any) -> jax.Array:
        """-> scalar."""
        return self.sign * self.loss(output, self.compared)


class HasTarget(Protocol):
    """An attack that chooses a class if the caller does not say."""

    @property
    def target(self) -> Target:
        """What chooses."""
        ...


class HasGoal(HasTarget, Protocol):
    """An attack that climbs a loss."""

    @property
    def loss(self) -> Callable[..., jax.Array]:
        """A `Loss`; to type checkers, the field of a class that is no dataclass binds `self`."""
        ...


def goal_of(attack: HasGoal, logits_fn: LogitsFn, key: jax.Array, example: Example) -> Goal:
    """What the attack maximises on this example.

    A class that is given as `example.target` is gone to, so that a loss of a label is minimised;
    what is given to a loss that is compared with a reference is that reference.

    Args:
      attack: its `loss` and `target`.
      logits_fn: the model of one image, for targets that look at it.
      key: for targets that are drawn.
      example: the image, its label, and what the caller gives.

    Raises:
      ValueError: the loss needs another kind of target than it would get.
    """
    loss, given, kind = attack.loss, example.target, compared_with(attack.loss)
    if kind == "reference":
        if given is None or is_class(given):
            raise ValueError(
                f"the loss {name_of(loss)} needs a target, arrays that it compares the output "
                "with: pass them, or choose a loss of a class: cross_entropy, margin or dlr"
            )
        return Goal(jax.tree.map(jnp.asarray, given), loss)
    if given is None:
        check_goal(attack)
        target = attack.target
        chosen = target(key, example.x, example.y, logits_fn)
        towards, forwards = target.towards, target.forwards
    else:
        chosen, towards, forwards = given, True, 0
    if kind == "pair":
        if given is not None and not is_class(given):
            raise ValueError(
                f"the loss {name_of(loss)} goes to a class: give that alone, an integer; the "
                "attack makes the pair (label, class)"
            )
        return Goal((jnp.asarray(example.y), jnp.asarray(chosen)), loss, 1, forwards)
    return Goal(jax.tree.map(jnp.asarray, chosen), loss, -1 if towards else 1, forwards)


def check_goal(attack: HasGoal) -> None:
    """Raise ValueError if the attack cannot do without a target that the caller gives."""
    kind = compared_with(attack.loss)
    if kind == "reference" or (kind == "pair" and not attack.target.towards):
        raise ValueError(
            f"the loss {name_of(attack.loss)} needs a target, {NEEDS[kind]}: pass one, or choose a "
            "loss of the label: cross_entropy, margin or dlr"
        )


NEEDS = {
    "pair": "a class to go to, as the field target=targets.Random() chooses one",
    "reference": "arrays that it compares the output with",
}


def check_chosen_once(attack: HasTarget, wrong: bool = True) -> None:
    """Raise ValueError unless the target stays what it is chosen to be.

    Args:
      attack: one with a target.
      wrong: it is also to be a wrong class, or the label to leave.
    """
    name, target = type(attack).__name__, attack.target
    if target.redraw:
        raise ValueError(
            f"{name} chooses its target once: only PGD, ZerothOrder and JointPGD redraw it"
        )
    if wrong and isinstance(target, Random) and target.with_label:
        raise ValueError(f"target: {name} needs a wrong class, which 'any' may not be")
