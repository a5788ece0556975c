"""Minimum-norm attacks that weigh the size of a change against what the objective still lacks.

Rounds of descent, each with a constant for that weight, inside a binary search over the constant.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example, MinimumNorm
from robustjax.attacks._core.success import Success, fooled, won_by
from robustjax.attacks._minimum_norm import binary_search
from robustjax.attacks.targets import Goal, Target, TrueLabel, check_chosen_once, goal_of
from robustjax.config import config, number, static
from robustjax.losses import margin
from robustjax.typing import Cost, LogitsFn, Loss, Threat


class Started(NamedTuple):
    """A given target that also says where to begin; distances are still those from the clean image.

    Attributes:
      image: (H, W, C) in the box, such as another attack's result.
      target: the class to go to; None: what the attack's own `target` says.

    From the opposite corner to the same nearest image, 0.5 / sqrt(2) from the clean one:

    >>> x = jnp.array([[[0.75], [0.25]]])
    >>> attack, start = rj.attacks.CarliniWagnerL2(steps=50), rj.attacks.Started(1 - x, target=1)
    >>> z = attack(jnp.ravel, jax.random.key(0), x, 0, start)
    >>> round(float(jnp.linalg.norm(z - x)), 2)
    0.35
    """

    image: jax.Array
    target: Any = None


class Probe(NamedTuple):
    """The model's word on one image.

    Attributes:
      lack: () max(0, least - gain): how much of the gain that counts is missing.
      gradient: (H, W, C) of `lack`.
      hit: () success, with any gain.
      won: () success, with the confidence asked for.
    """

    lack: jax.Array
    gradient: jax.Array
    hit: jax.Array
    won: jax.Array


class Trial(NamedTuple):
    """What one step of a descent comes to.

    Attributes:
      walk: where the descent is now; any pytree.
      image: (H, W, C) in the box, which it tried.
      probe: of that image.
      enough: () the constant that is enough if the round ends here and is won.
      objective: () what is being minimised; it decides when to give a round up.
    """

    walk: Any
    image: jax.Array
    probe: Probe
    enough: jax.Array
    objective: jax.Array


class PenaltyState(NamedTuple):
    """Where an attack is.

    Attributes:
      goal: what is to reach `least`.
      least: () the gain that counts.
      walk: the descent of this round.
      search: the constant and its round.
      best: (H, W, C) the smallest change that counts; the clean image before any.
      size: () of it; inf before any.
      spare: (H, W, C) of the images with success the one that lacked least; clean before any.
      lack: () what it lacked; inf before any.
      steps: () of all rounds.
    """

    goal: Goal
    least: jax.Array
    walk: Any
    search: binary_search.Search
    best: jax.Array
    size: jax.Array
    spare: jax.Array
    lack: jax.Array
    steps: jax.Array


@config
class Penalty(MinimumNorm):
    """The common part: what counts, the binary search, the best image of all rounds and steps.

    The gain is `loss(output, target)`, negated on the way to a target class. An image counts if
    `success` holds and its gain is at least `confidence` (and a ten-thousandth of the clean image's
    way there more, so that nothing is won by rounding).

    Args:
      threat: the norm in which results are reported; eps = inf counts every success.
      confidence: kappa, in units of the loss.
      steps: of one round.
      step_size: of the first step; the steps of a round fall to zero.
      rounds: of the binary search.
      constant: of the first round.
      loss: (output, target) -> scalar that is to reach `confidence`: a detector's too.
      success: (output, true label) -> bool.
      target: which class is left or gone to when the caller gives none: `attacks.targets`.
    """

    threat: Threat
    confidence: float = number(default=0.0)
    steps: int = number(default=1000, low=1)
    step_size: float = number(default=0.01)
    rounds: int = number(default=9, low=1)
    constant: float = number(default=0.01, low=binary_search.LEAST)
    loss: Loss = static(default=margin)
    success: Success = static(default=fooled)
    target: Target = TrueLabel()

    def __post_init__(self):
        check_chosen_once(self)

    @abc.abstractmethod
    def start(self, image: jax.Array, x: jax.Array, constant: jax.Array) -> Any:
        """The walk at the beginning of a round: at `image`, distances measured from x."""

    @abc.abstractmethod
    def descend(self, probe: Any, example: Example, state: PenaltyState) -> Trial:
        """One step of the walk; `probe(image)` is one forward and one backward pass."""

    @abc.abstractmethod
    def measure(self, z: jax.Array, x: jax.Array) -> jax.Array:
        """The size () of z - x by which images that count are compared."""

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> PenaltyState:
        image, example = _origin(example)
        output = logits_fn(example.x)
        goal = goal_of(self, logits_fn, jax.random.fold_in(example.key, 0), example)
        value = goal(output)
        won = won_by(self.success, output, example) & (value >= self.confidence)
        way = jnp.abs(self.confidence - value)
        search = binary_search.begin(self.constant)
        return PenaltyState(
            goal=goal,
            least=self.confidence + 1e-6 + 1e-4 * jnp.where(jnp.isfinite(way), way, 0),
            walk=self.start(image, example.x, search.constant),
            search=search,
            best=example.x,
            size=jnp.where(won, 0, jnp.float32(jnp.inf)),
            spare=example.x,
            lack=jnp.float32(jnp.inf),
            steps=jnp.int32(0),
        )

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: PenaltyState) -> PenaltyState:
        origin, example = _origin(example)

        def gain(z):
            output = logits_fn(z)
            return state.goal(output), won_by(self.success, output, example)

        def probe(z):
            (value, wrong), gradient = jax.value_and_grad(gain, has_aux=True)(z)
            lack = jnp.maximum(state.least - value, 0)
            # A sum of hinges is satisfied at its bound, where it is flat, and never goes beyond.
            flat = (value == self.confidence) & ~jnp.any(gradient != 0)
            won = wrong & ((lack == 0) | flat)
            return Probe(lack, jnp.where(lack > 0, -gradient, 0), wrong, won)

        walk, image, found, enough, objective = self.descend(probe, example, state)
        size = self.measure(image, example.x)
        better, nearer = found.won & (size < state.size), found.hit & (found.lack < state.lack)
        search, over = binary_search.count(state.search, found.won, enough, objective, self.steps)
        fresh = self.start(origin, example.x, search.constant)
        return state._replace(
            walk=jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, walk),
            search=search,
            best=jnp.where(better, image, state.best),
            size=jnp.where(better, size, state.size),
            spare=jnp.where(nearer, image, state.spare),
            lack=jnp.where(nearer, found.lack, state.lack),
            steps=state.steps + 1,
        )

    @override
    def done(self, state: PenaltyState) -> jax.Array:
        return (state.search.rounds >= self.rounds) | (state.size == 0)

    @override
    def result(self, example: Example, state: PenaltyState) -> jax.Array:
        return state.best

    @override
    def spent(self, state: PenaltyState) -> Cost:
        return Cost(1 + state.goal.forwards + state.steps, state.steps)

    def fading(self, search: binary_search.Search) -> jax.Array:
        """The size of this step: it falls linearly to zero over a round, so that rounds settle."""
        return self.step_size * (1 - search.step / jnp.float32(self.steps))


def _origin(example: Example) -> tuple[jax.Array, Example]:
    """Where to begin, and the example with the class that was given, if any."""
    given = example.target
    if not isinstance(given, Started):
        return example.x, example
    return given.image, example._replace(target=given.target)
