"""Projected gradient ascent on a classifier and a detector together."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from robustjax.attacks._core.ensemble import WorstOf
from robustjax.attacks._core.iterative import Example, Iterative
from robustjax.attacks._core.success import fooled, logits_of
from robustjax.attacks._gradient.pgd import LINF
from robustjax.attacks.starts import Start, Uniform
from robustjax.attacks.targets import Label, aim, check_aim, sense
from robustjax.config import config, number, static
from robustjax.detection.detector import accepted_and_wrong
from robustjax.deterministic import ordered_sum
from robustjax.losses import margin
from robustjax.threats import L2, radius
from robustjax.typing import Cost, LogitsFn, Loss, Threat

Constraint = Literal["selectable", "orthogonal", "sum"]


class State(NamedTuple):
    """Where an attack is.

    Attributes:
      looks: () at images so far, one more than steps.
      target: what the loss compares the output with.
      x_adv: (H, W, C) the image to look at next.
      best: (H, W, C) of the images that fool, the one with the highest score.
      score: () its score; -inf before any.
    """

    looks: jax.Array
    target: Any
    x_adv: jax.Array
    best: jax.Array
    score: jax.Array


@config
class JointPGD(Iterative):
    """PGD that fools the classifier and raises the detector's score, on a model of `with_score`.

    With g the gradient of `loss(output, target)` and s that of the score, a step follows

        'sum'          g + weight s
        'selectable'   s where the image fools already, else g
        'orthogonal'   as 'selectable', of s the part orthogonal to g, and of g that orthogonal to
                       s, so that to gain on one does not, to first order, cost the other.

    Of all images that fool, it returns the one with the highest score: where one of them is
    accepted, the result is accepted and wrong, at whatever threshold. Else it returns the last
    image. All steps are taken, so that scores say how far the detector can be led.

    Args:
      threat: the ball.
      steps: number of gradient steps; may be traced.
      rel_step: the travel of all steps together, in units of eps.
      start: where the ascent begins.
      constraint: 'sum', 'selectable' or 'orthogonal'.
      weight: of the score in 'sum', in units of the loss per unit of the score.
      loss: (output, target) -> scalar, maximised; reads the logits.
      label, rank: what the loss compares the output with when no target is given, as for `PGD`.

    References: Bryniarski et al., "Evading adversarial example detection defenses with orthogonal
    projected gradient descent", 2022, Sec. 4. Their code asks of an image that fools that its label
    be 0.05 behind, and begins at the clean image; it has a variant that alternates by the number of
    the step.

    Guarantees:
      The result lies in the ball and in [0, 1].
      Where an image on the way was accepted and wrong, so is the result.
      In 'orthogonal' the direction of one has no component along the gradient of the other.
      A zero gradient makes no NaN.
    """

    threat: Threat = LINF
    steps: int = number(default=100)
    rel_step: float = number(default=2.5)
    start: Start = Uniform()
    constraint: Constraint = static(default="orthogonal")
    weight: float = number(default=1.0)
    loss: Loss = static(default=margin)
    label: Label = static(default="true")
    rank: int = number(default=1, low=1)

    @property
    def reach(self) -> float:
        """How far all steps together travel, in units of eps."""
        return self.rel_step

    def begin(self, logits_fn: LogitsFn, example: Example) -> State:
        """The start, not looked at yet."""
        x, target = example.x, example.target
        if target is None:
            check_aim(self.loss, self.label)
            logits = None if self.label == "true" else logits_of(logits_fn(x))
            key = jax.random.fold_in(example.key, 1)
            target = aim(self.loss, self.label, logits, key, example.y, self.rank)
        x_start = self.start(jax.random.fold_in(example.key, 0), x, self.threat, logits_fn)
        target = jax.tree.map(jnp.asarray, target)
        return State(jnp.int32(0), target, x_start, x_start, jnp.float32(-jnp.inf))

    def step(self, logits_fn: LogitsFn, example: Example, state: State) -> State:
        """Look at an image, then move on."""

        def look(z):
            output = logits_fn(z)
            value = sense(self.loss, self.label) * self.loss(output, state.target)
            return (value, output["score"]), fooled(output, example.y)

        (_, score), pull, wrong = jax.vjp(look, state.x_adv, has_aux=True)
        better = wrong & (score > state.score)
        size = self.rel_step * radius(self.threat) / jnp.maximum(self.steps, 1)
        x_adv = self.threat.step(state.x_adv, self._direction(pull, wrong), size, example.x)
        return state._replace(
            looks=state.looks + 1,
            x_adv=jnp.where(state.looks < self.steps, x_adv, state.x_adv),
            best=jnp.where(better, state.x_adv, state.best),
            score=jnp.where(better, score, state.score),
        )

    def done(self, state: State) -> jax.Array:
        """When the image after the last step has been looked at."""
        return state.looks > self.steps

    def result(self, example: Example, state: State) -> jax.Array:
        """The image that fools with the highest score; the last image if none fools."""
        return jnp.where(jnp.isneginf(state.score), state.x_adv, state.best)

    def spent(self, state: State) -> Cost:
        """A forward pass per image looked at, two backward passes in 'orthogonal', else one."""
        chosen = self.start.calls + (self.label != "true")
        passes = 2 if self.constraint == "orthogonal" else 1
        return Cost(state.looks + chosen, passes * state.looks + self.start.calls)

    def _direction(self, pull, wrong):
        """The direction of ascent; `pull` of weights is the gradient of the weighted sum."""
        if self.constraint == "sum":
            return pull((1.0, self.weight))[0]
        if self.constraint == "selectable":
            return pull((jnp.where(wrong, 0.0, 1.0), jnp.where(wrong, 1.0, 0.0)))[0]
        fool, hide = pull((1.0, 0.0))[0], pull((0.0, 1.0))[0]
        return jnp.where(wrong, orthogonal(hide, fool), orthogonal(fool, hide))


def AdaptivePGD(threat: Threat = LINF, steps: int = 100) -> WorstOf:
    """`JointPGD` under each constraint in turn, on the images that are not yet accepted and wrong.

    No constraint suits all detectors: where both gradients are nearly parallel, as those of a
    margin and a confidence, little of them is orthogonal.

    Args:
      threat: the ball.
      steps: of each ascent, 2.5 eps / steps long.
    """
    each = (JointPGD(threat, steps, constraint=name) for name in get_args(Constraint))
    return WorstOf(tuple(each), success=accepted_and_wrong)


def orthogonal(gradient: jax.Array, other: jax.Array) -> jax.Array:
    """`gradient` less its component along `other`; unchanged if that is zero."""
    unit = L2().steepest(other)
    return gradient - ordered_sum((gradient * unit).reshape(-1)) * unit
