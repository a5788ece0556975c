"""FAB: the fast adaptive boundary attack, for the nearest adversarial image in Linf, L2 and L1."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._minimum_norm.boundary import NUDGE, BoundaryState, Evaluation, dual_norm
from robustjax.attacks._minimum_norm.hyperplanes import GapSearch, Plane, shift
from robustjax.attacks.starts import Uniform
from robustjax.attacks.targets import Target, TrueLabel
from robustjax.config import config, number, static
from robustjax.threats import L1, L2, Linf, box_of
from robustjax.threats._trees import check_norm
from robustjax.typing import Threat

LINF = Linf(float("inf"))


@config
class FAB(GapSearch):
    """Walk along the decision boundary, pulled towards the clean image.

    Let P be the nearest of the planes on which a linearised gap z_k - z_y is zero, and p(.) the
    exact projection onto P within the box. Then
      x_{k+1} = clip((1 - a) (x_k + eta (p(x_k) - x_k)) + a (x + eta (p(x) - x))),
      a = min(|p(x_k) - x_k| / (|p(x_k) - x_k| + |p(x) - x|), alpha_max),
    where an adversarial x_k is first replaced by x + beta (x_k - x).

    Differences from the authors' code: the planes are those at x_k itself, even if it then steps
    back, so one forward pass gives the verdict and the gradients, where theirs needs two; the
    random start is uniform in its ball, not on its sphere.

    Args:
      threat: the norm; eps is the radius of a random start only.
      steps: number of moves.
      alpha_max: largest pull towards the clean image.
      eta: overshooting of the projections.
      beta: where an adversarial iterate steps back to, as a fraction of its way from x.
      target: `TrueLabel()` uses the nearest of the planes of all K - 1 wrong classes, with K - 1
        backward passes a step; a target class uses its own plane, as FAB-T does with `Ranked()`.
        For a class that the caller gives, it is the plane between it and the best other class.
      random_start: after the clean image, start at a random point of the ball of radius eps / 2.
      success: (output, label) -> bool: what counts as adversarial.

    References: Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive
      boundary attack", 2020, Algorithm 1; FAB-T: "Reliable evaluation of adversarial robustness",
      2020.

    Guarantees:
      The result is the clean image or an adversarial one in the box.
      A misclassified clean image is its own result.
      On a linear classifier the distance is within 1 % of the smallest, the box included.
      A zero gradient makes no NaN.

    Two pixels that are the logits. In Linf the nearest image of the other class moves both by half
    of their difference:

    >>> x = jnp.array([[[0.75], [0.25]]])
    >>> z = rj.attacks.FAB(steps=20)(jnp.ravel, jax.random.key(0), x, 0)
    >>> round(float(jnp.abs(z - x).max()), 2)
    0.25
    """

    threat: Threat = LINF
    steps: int = number(default=100, low=1)
    alpha_max: float = number(default=0.1, high=1.0)
    eta: float = number(default=1.05, low=1.0)
    beta: float = number(default=0.9, high=1.0)
    target: Target = TrueLabel()
    random_start: bool = static(default=False)
    success: Success = static(default=fooled)

    def __post_init__(self):
        super().__post_init__()
        check_norm(self, Linf, L2, L1)
        eps = self.threat.eps if isinstance(self.threat, Linf | L2 | L1) else None
        if self.random_start and isinstance(eps, float) and math.isinf(eps):
            raise ValueError(
                "a random start needs a finite eps: it lies in a ball of radius eps / 2"
            )

    @override
    def move(
        self, example: Example, walk: BoundaryState, seen: Evaluation
    ) -> tuple[jax.Array, tuple[()]]:
        x, point = example.x, walk.point
        plane = Plane(seen.gradient, -seen.value, point)
        point = jnp.where(seen.won, x + self.beta * (point - x), point)
        box = box_of(self.threat, x)
        least = NUDGE * dual_norm(self.threat, plane.normal)

        def leap(p):
            gain = plane.lacking(p)
            gain = jnp.where(jnp.abs(gain) < least, least, gain)
            return shift(self.threat, box, p, plane.normal, gain)

        here, there = jax.vmap(leap)(jnp.stack([point, x]))
        near = jnp.maximum(self.threat.distance(here, jnp.zeros_like(x)), 1e-8)
        far = jnp.maximum(self.threat.distance(there, jnp.zeros_like(x)), 1e-8)
        alpha = jnp.minimum(near / (near + far), self.alpha_max)
        if example.target is not None:
            # Between two planes the pull would keep it outside the class for ever.
            alpha = jnp.where(jnp.isfinite(walk.distance), alpha, 0)
        moved = (1 - alpha) * (point + self.eta * here) + alpha * (x + self.eta * there)
        if self.random_start:
            start = Uniform(0.5)(jax.random.fold_in(example.key, 1), x, self.threat)
            moved = jnp.where(walk.taken == 0, start, moved)
        return moved, ()
