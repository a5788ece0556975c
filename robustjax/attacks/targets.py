"""Which class an attack leaves or goes to, and what it maximises for that.

A `Target` chooses the class where the caller gives none; an attack goes towards a class that the
caller gives. Either makes a `Goal`: the loss, its sign, and what it is compared with.
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
from robustjax.names import KINDS, Names
from robustjax.outputs import logits_of
from robustjax.typing import LogitsFn, Loss


class Target(abc.ABC):
    """A class for each example, chosen before the first step or at every step.

    A subclass may look at the whole output of the model, features too, at any image.

    Attributes:
      towards: the attack goes to the class; False: it leaves it.
      redraw: the class is chosen again at every step, with another key.
      forwards: the number of forward passes of one choice.

    >>> @rj.config.config
    ... class Brightest(rj.attacks.targets.Target):
    ...     def __call__(self, key, x, y, logits_fn):
    ...         return jnp.argmax(logits_fn(jnp.ones_like(x)))
    >>> int(Brightest()(jax.random.key(0), jnp.zeros(3), 0, lambda x: 2 * x + jnp.arange(3.0)))
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
    """Away from the label.

    >>> x = jnp.float32([0.2, 0.7, 0.1])
    >>> rj.attacks.targets.TrueLabel()(jax.random.key(0), x, 1, jnp.ravel)
    1
    """

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

    >>> x = jnp.float32([0.2, 0.7, 0.1])
    >>> int(rj.attacks.targets.Prediction()(jax.random.key(0), x, 0, jnp.ravel))
    1
    """

    towards = False

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, y: jax.Array, logits_fn: LogitsFn
    ) -> jax.Array:
        return jnp.argmax(logits_of(logits_fn(x)))


@config
class LeastLikely(Target):
    """Towards the class with the smallest logit above -inf on the clean image.

    References: Kurakin et al., "Adversarial examples in the physical world", 2017.

    >>> x = jnp.float32([0.2, 0.7, 0.1])
    >>> int(rj.attacks.targets.LeastLikely()(jax.random.key(0), x, 0, jnp.ravel))
    2
    """

    @override
    def __call__(
        self, key: jax.Array, x: jax.Array, y: jax.Array, logits_fn: LogitsFn
    ) -> jax.Array:
        logits = logits_of(logits_fn(x))
        return jnp.argmin(jnp.where(logits > -jnp.inf, logits, jnp.inf))


@config
class Ranked(Target):
    """Towards the `rank`-th most likely wrong class of the clean image.

    Attributes:
      rank: from 1 to the number of wrong classes with a logit above -inf; a larger one counts as
        that number. May be traced.

    >>> x = jnp.float32([0.2, 0.7, 0.1])
    >>> int(rj.attacks.targets.Ranked(1)(jax.random.key(0), x, 1, jnp.ravel))
    0
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
      redraw: draw another one at every step.
      with_label: draw the label too, as in the crafting of Pang et al. (2020). With `redraw` and
        the loss `multi_target` this is the attack of "Bag of Tricks" (Pang et al. 2021).

    >>> x, draw = jnp.float32([0.2, 0.7, 0.1]), rj.attacks.targets.Random()
    >>> {int(draw(key, x, 1, jnp.ravel)) for key in jax.random.split(jax.random.key(0), 9)}
    {0, 2}
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
    """The wrong classes, the most likely ones first: (min(most, K - 1),) indices.

    For a class with a logit of -inf stands the last one before it, if there is any.
    """
    wrong = jnp.arange(logits.size) != y
    known = jnp.sum(wrong & (logits > -jnp.inf))
    # The label comes last, behind classes of -inf too.
    order = jnp.lexsort((-logits, ~wrong))
    return order[jnp.minimum(jnp.arange(logits.size - 1), jnp.maximum(known, 1) - 1)][:most]


@config
class Goal:
    """The objective of an attack: sign * loss(output, compared), a function of the model's output.

    Attributes:
      compared: what the loss compares the output with.
      loss: (output, compared) -> scalar.
      sign: -1 towards a class that the loss is compared with, else 1.
      forwards: the number of forward passes that the choice took.

    >>> goal = rj.attacks.targets.Goal(2, rj.losses.margin, sign=-1)
    >>> round(float(goal(jnp.float32([0.2, 0.7, 0.1]))), 2)
    -0.6
    """

    compared: Any
    loss: Loss = static()
    sign: int = static(default=1)
    forwards: int = static(default=0)

    def __call__(self, output: Any) -> jax.Array:
        """Output -> scalar, to be maximised."""
        value = self.loss(output, self.compared)
        return value if self.sign > 0 else -value


class HasTarget(Protocol):
    """An attack that chooses a class where the caller gives none."""

    @property
    def target(self) -> Target:
        """Chooses the class."""
        ...


class HasGoal(HasTarget, Protocol):
    """An attack that climbs a loss."""

    @property
    def loss(self) -> Callable[..., jax.Array]:
        """A `Loss`; to type checkers, the field of a class that is no dataclass binds `self`."""
        ...


def goal_of(attack: HasGoal, logits_fn: LogitsFn, key: jax.Array, example: Example) -> Goal:
    """The objective of the attack on this example.

    An attack goes to a class that is given as `example.target`: it minimises a loss of a label. A
    loss that is compared with a reference takes `example.target` as that reference.

    Args:
      attack: has `loss` and `target`.
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
    """Raise ValueError if the attack needs a target from the caller."""
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
    """Raise ValueError if the target changes between steps.

    Args:
      attack: one with a target.
      wrong: reject random targets that may be the label, too.
    """
    name, target = type(attack).__name__, attack.target
    if target.redraw:
        raise ValueError(
            f"{name} chooses its target once: only PGD, ZerothOrder and JointPGD redraw it"
        )
    if wrong and isinstance(target, Random) and target.with_label:
        raise ValueError(f"target: {name} needs a wrong class, which 'any' may not be")
