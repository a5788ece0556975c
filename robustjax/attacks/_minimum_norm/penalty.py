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


class StartAt(NamedTuple):
    """A target that also says where to start; distances are still measured from the clean image.

    Attributes:
      image: (H, W, C) in the box, such as another attack's result.
      target: the class to reach; None: as the attack's own `target` says.

    From the opposite corner to the same nearest image, 0.5 / sqrt(2) from the clean one:

    >>> x = jnp.array([[[0.75], [0.25]]])
    >>> attack, start = rj.attacks.CarliniWagnerL2(steps=50), rj.attacks.StartAt(1 - x, target=1)
    >>> z = attack(jnp.ravel, jax.random.key(0), x, 0, start)
    >>> round(float(jnp.linalg.norm(z - x)), 2)
    0.35
    """

    image: jax.Array
    target: Any = None


class Probe(NamedTuple):
    """Model output at one image.

    Attributes:
      lack: () max(0, least - gain): how much of the gain that counts is missing.
      gradient: (H, W, C) of `lack`.
      hit: () success, with any gain.
      won: () success, with the confidence asked for.
      broken: () the gain or its gradient is NaN.
    """

    lack: jax.Array
    gradient: jax.Array
    hit: jax.Array
    won: jax.Array
    broken: jax.Array


class Trial(NamedTuple):
    """Result of one step of a descent.

    Attributes:
      walk: where the descent is now; any pytree.
      image: (H, W, C) in the box, evaluated in this step.
      probe: of that image.
      enough: () the constant that suffices if the round ends here and is won.
      objective: () what is minimised; a round ends when it stalls.
    """

    walk: Any
    image: jax.Array
    probe: Probe
    enough: jax.Array
    objective: jax.Array


class PenaltyState(NamedTuple):
    """State of a penalty attack.

    Attributes:
      goal: output -> the gain, which has to reach `least`.
      least: () the gain that counts.
      walk: the descent of this round.
      search: the constant and its round.
      best: (H, W, C) the image with the smallest change that counts; the clean image at first.
      size: () of that change; inf at first.
      spare: (H, W, C) of the successful images the one that lacks least; the clean one at first.
      lack: () what it lacks; inf at first.
      broken: () a gain or its gradient was NaN.
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
    broken: jax.Array
    steps: jax.Array


@config
class Penalty(MinimumNorm):
    """Base class: decides which images count, runs the binary search and keeps the best image.

    The gain is `loss(output, target)`, negated for a target class. An image counts if `success`
    holds and its gain is at least `confidence`, plus a ten-thousandth of what the clean image
    lacks, so that rounding alone wins nothing.

    Args:
      threat: the norm in which results are reported; eps = inf counts every success.
      confidence: kappa, in units of the loss.
      steps: of one round.
      step_size: of the first step; the steps of a round fall to zero.
      rounds: of the binary search.
      constant: of the first round.
      loss: (output, target) -> scalar that has to reach `confidence`; a detector's will do.
      success: (output, true label) -> bool.
      target: which class to leave or to reach when the caller gives none: `attacks.targets`.
    """

    threat: Threat
    confidence: float = number(default=0.0)
    steps: int = number(default=1000, low=1)
    step_size: float = number(default=0.01)
    rounds: int = number(default=9, low=1)
    constant: float = number(default=0.01, low=binary_search.MIN_CONSTANT)
    loss: Loss = static(default=margin)
    success: Success = static(default=fooled)
    target: Target = TrueLabel()

    def __post_init__(self):
        check_chosen_once(self)

    @abc.abstractmethod
    def start(self, image: jax.Array, x: jax.Array, constant: jax.Array) -> Any:
        """The walk at the start of a round: at `image`, with distances measured from x."""

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
        value = goal(output).astype(example.x.dtype)
        won = won_by(self.success, output, example) & (value >= self.confidence)
        way = jnp.abs(self.confidence - value)
        infinity = jnp.asarray(jnp.inf, value.dtype)
        search = binary_search.begin(jnp.asarray(self.constant, value.dtype))
        return PenaltyState(
            goal=goal,
            least=self.confidence + 1e-6 + 1e-4 * jnp.where(jnp.isfinite(way), way, 0),
            walk=self.start(image, example.x, search.constant),
            search=search,
            best=example.x,
            size=jnp.where(won, 0, infinity),
            spare=example.x,
            lack=infinity,
            broken=jnp.asarray(False),
            steps=jnp.int32(0),
        )

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: PenaltyState) -> PenaltyState:
        origin, example = _origin(example)

        def gain(z):
            output = logits_fn(z)
            return state.goal(output).astype(z.dtype), won_by(self.success, output, example)

        def probe(z):
            (value, wrong), gradient = jax.value_and_grad(gain, has_aux=True)(z)
            broken = jnp.isnan(value) | ~jnp.all(jnp.isfinite(gradient))
            lack = jnp.maximum(state.least - value, 0)
            # A sum of hinges is satisfied at its bound, where it is flat, and never goes beyond.
            flat = (value == self.confidence) & ~jnp.any(gradient != 0)
            won = wrong & ((lack == 0) | flat)
            slope = jnp.where((lack > 0) & ~broken, -gradient, 0)
            return Probe(lack, slope, wrong, won, broken)

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
            broken=state.broken | found.broken,
            steps=state.steps + 1,
        )

    @override
    def done(self, state: PenaltyState) -> jax.Array:
        return (state.search.rounds >= self.rounds) | (state.size == 0)

    @override
    def result(self, example: Example, state: PenaltyState) -> jax.Array:
        return state.best

    @override
    def broken(self, state: PenaltyState) -> jax.Array:
        return state.broken

    @override
    def spent(self, state: PenaltyState) -> Cost:
        return Cost(1 + state.goal.forwards + state.steps, state.steps)

    def fading(self, search: binary_search.Search) -> jax.Array:
        """The size of this step: it falls linearly to zero over a round, which converges."""
        return self.step_size * (1 - search.step / jnp.float32(self.steps))


def _origin(example: Example) -> tuple[jax.Array, Example]:
    """The image to start from, and the example with the given class, if any."""
    given = example.target
    if not isinstance(given, StartAt):
        return example.x, example
    return given.image.astype(example.x.dtype), example._replace(target=given.target)
