"""Projected gradient ascent on a classifier and a detector together."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.ensemble import WorstOf
from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import fooled, won_by
from robustjax.attacks._gradient.ascent import Ascent, AscentState
from robustjax.attacks._gradient.pgd import LINF
from robustjax.attacks.starts import Start, Uniform
from robustjax.attacks.steps import Adam, Momentum, Rule, Steepest
from robustjax.attacks.targets import Target, TrueLabel
from robustjax.checks import checked
from robustjax.config import config, number, static
from robustjax.detection.detector import accepted_and_wrong
from robustjax.deterministic import ordered_sum
from robustjax.losses import margin
from robustjax.threats import L2, Linf, radius
from robustjax.typing import Cost, LogitsFn, Loss, Threat

Constraint = Literal["sum", "orthogonal"]


class JointPGDState(NamedTuple):
    """The state of a joint ascent.

    Attributes:
      ascent: at the next image to look at.
      best: (H, W, C), the image with the highest score of those that fool the classifier.
      score: () its score; -inf before there is one.
    """

    ascent: AscentState
    best: jax.Array
    score: jax.Array


@config
class JointPGD(Ascent):
    """PGD that fools the classifier and raises the detector's score, on a model of `with_score`.

    With g the gradient of `loss(output, target)` and s that of the score, each of unit length, a
    step follows s where the image fools already, else g, and of the other one

        'sum'          adds `weight` times; with 0 it is the paper's selective attack
        'orthogonal'   takes the direction out of it: to first order, a gain in one does not cost
                       the other.

    Of all images that fool the classifier, it returns the one with the highest score: if any of
    them is accepted, at whatever threshold, the result is accepted and wrong. If none fools, it
    returns the last image. It takes all steps, so the score shows how far the detector can be led.

    Args:
      threat: the ball.
      steps: number of gradient steps; may be traced.
      rel_step: the travel of all steps together, in units of eps.
      start: where the ascent begins.
      constraint: 'sum' or 'orthogonal'.
      weight: of the other gradient in 'sum'.
      rule: how the direction becomes a step. `Adam` suits Linf, `Momentum` the other norms.
      loss: (output, target) -> scalar, maximised; reads the logits.
      target: which class is left or gone to when the caller gives none: `attacks.targets`.

    References: Bryniarski et al., "Evading adversarial example detection defenses with orthogonal
    projected gradient descent", 2022, Sec. 4, whose attacks are JointPGD(rule=Steepest(),
    rel_step=2.5, constraint='orthogonal'), and 'sum' with a weight of 0. Their code counts an image
    as fooling only if its label is 0.05 behind, and begins at the clean image; a variant of it
    alternates between the two gradients by step number. The sum of unit gradients, and Adam, are
    ours.

    Guarantees:
      The result lies in the ball and in the box of its threat.
      Where an image on the way was accepted and wrong, so is the result.
      In 'orthogonal' the direction of one has no component along the gradient of the other.
      A zero gradient makes no NaN.

    Two pixels are the logits, and the third is the score:

    >>> def watched(x):
    ...     return {"logits": jnp.ravel(x)[:2], "score": jnp.ravel(x)[2] - 0.625}
    >>> x, threat = jnp.array([[[0.75], [0.625], [0.5]]]), rj.threats.Linf(0.25)
    >>> attack = jax.jit(rj.detection.JointPGD(threat, steps=8), static_argnums=0)
    >>> output = watched(attack(watched, jax.random.key(0), x, 0))
    >>> int(jnp.argmax(output["logits"])), float(output["score"])  # wrong and accepted
    (1, 0.125)
    """

    threat: Threat = LINF
    steps: int = number(default=100)
    rel_step: float = number(default=10.0)
    start: Start = Uniform()
    constraint: Constraint = static(default="sum")
    weight: float = number(default=1 / 3)
    rule: Rule = Adam()
    loss: Loss = static(default=margin)
    target: Target = TrueLabel()

    def __post_init__(self):
        if type(self.rule).probe is not Rule.probe:
            raise ValueError(
                f"rule {type(self.rule).__name__} looks ahead, and JointPGD judges the image that "
                "it takes gradients at: choose Adam(), Momentum() or Steepest()"
            )

    @property
    @override
    def size(self) -> jax.Array:
        return self.rel_step * radius(self.threat) / jnp.maximum(self.steps, 1)

    @property
    def reach(self) -> float:
        """The travel of all steps together, in units of eps, without the start."""
        return self.rel_step

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> JointPGDState:
        begun = super().begin(logits_fn, example)
        return JointPGDState(begun, begun.x_adv, jnp.asarray(-jnp.inf, example.x.dtype))

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: JointPGDState) -> JointPGDState:
        ascent = self.aimed(logits_fn, example, state.ascent)

        def look(z):
            output = logits_fn(z)
            values = ascent.goal(output), output["score"]
            return tuple(value.astype(z.dtype) for value in values), output

        (_, score), transposed, output = jax.vjp(look, ascent.x_adv, has_aux=True)

        def pull(*weights):
            return transposed(tuple(jnp.asarray(weight, score.dtype) for weight in weights))[0]

        wrong = won_by(fooled, output, example)
        better = wrong & (score > state.score)
        fool, hide = pull(1.0, 0.0), pull(0.0, 1.0)
        moved = self.move(example, ascent, self._direction(fool, hide, wrong), output, Cost(1, 2))
        # The image after the last step is looked at too, and stays.
        x_adv = jnp.where(ascent.looks < self.steps, moved.x_adv, ascent.x_adv)
        return JointPGDState(
            ascent=moved._replace(x_adv=x_adv),
            best=jnp.where(better, ascent.x_adv, state.best),
            score=jnp.where(better, score, state.score),
        )

    @override
    def done(self, state: JointPGDState) -> jax.Array:
        return state.ascent.looks > self.steps

    @override
    def result(self, example: Example, state: JointPGDState) -> jax.Array:
        return jnp.where(jnp.isneginf(state.score), state.ascent.x_adv, state.best)

    @override
    def broken(self, state: JointPGDState) -> jax.Array:
        return state.ascent.broken

    @override
    def spent(self, state: JointPGDState) -> Cost:
        return state.ascent.cost

    def _direction(self, fool, hide, wrong):
        """The direction of ascent, from the gradients of the loss and of the score."""
        unit = L2().steepest
        if self.constraint == "orthogonal":
            return unit(jnp.where(wrong, orthogonal(hide, fool), orthogonal(fool, hide)))
        of_score, of_loss = jnp.where(wrong, 1, self.weight), jnp.where(wrong, self.weight, 1)
        return of_score * unit(hide) + of_loss * unit(fool)


@checked
def AdaptivePGD(threat: Threat = LINF, steps: int = 100) -> WorstOf:
    """`JointPGD` in several forms in turn, on the images that are not yet accepted and wrong.

    No form suits all detectors: `experiments/detection_benchmark.py` compares them.

    Args:
      threat: the ball.
      steps: of each ascent.

    >>> attack = rj.detection.AdaptivePGD(rj.threats.Linf(8 / 255))
    >>> [type(stage.rule).__name__ for stage in attack.stages(num_classes=10)]
    ['Adam', 'Momentum', 'Steepest']
    """
    sums = [JointPGD(threat, steps, rule=rule) for rule in (Adam(), Momentum())]
    published = JointPGD(threat, steps, 2.5, constraint="orthogonal", rule=Steepest())
    by_norm = sums if isinstance(threat, Linf) else sums[1:]
    return WorstOf((*by_norm, published), success=accepted_and_wrong)


def orthogonal(gradient: jax.Array, other: jax.Array) -> jax.Array:
    """`gradient` without its component along `other`; unchanged if `other` is zero."""
    unit = L2().steepest(other)
    return gradient - ordered_sum((gradient * unit).reshape(-1)) * unit
