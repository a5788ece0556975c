"""DeepFool: step after step across the nearest linearised decision plane."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._minimum_norm.boundary import NUDGE, BoundaryState, Evaluation, dual_norm
from robustjax.attacks._minimum_norm.hyperplanes import GapSearch, Plane
from robustjax.attacks.targets import Target, TrueLabel
from robustjax.config import config, number, static
from robustjax.threats import L2, Linf
from robustjax.threats._trees import check_norm
from robustjax.typing import Threat

L2_NORM = L2(float("inf"))


@config
class DeepFool(GapSearch):
    """Step across the nearest linearised decision plane until the prediction is wrong.

    x_{k+1} = clip(x_k + (1 + overshoot) d), where d is the smallest change in the norm, ignoring
    the box, that makes a linearised gap z_k - z_y zero. Fast, but the result is not the nearest. A
    clipped step falls short of the plane, and the next one starts from a better linearisation.

    Difference from the authors' code: 1e-5 is added to the length of each step, not 1e-4.

    Args:
      threat: the norm; eps is not used.
      steps: largest number of moves; the first adversarial image ends the search.
      overshoot: how far beyond the plane a step goes, relative to its length.
      candidates: the number of rivals, the most likely wrong classes of the clean image; each takes
        a backward pass per step.
      target: `TrueLabel()` for any wrong class, or a class to reach when the caller gives none.
      success: (output, label) -> bool: what counts as adversarial.

    References: Moosavi-Dezfooli et al., "DeepFool: a simple and accurate method to fool deep neural
      networks", 2016, Algorithm 2.

    Guarantees:
      The result is the clean image or an adversarial one in the box.
      A misclassified clean image is its own result.
      On a linear classifier with at most `candidates` wrong classes, the distance is 1 + overshoot
      times the smallest, away from the box.
      A zero gradient moves nothing and makes no NaN.

    Two pixels that are the logits. The decision plane is 0.5 / sqrt(2) away; the one step that a
    linear model takes ends 2 % beyond it:

    >>> x = jnp.array([[[0.75], [0.25]]])
    >>> z = rj.attacks.DeepFool(overshoot=0.02)(jnp.ravel, jax.random.key(0), x, 0)
    >>> round(float(jnp.linalg.norm(z - x)) / (0.5 / 2**0.5), 3)
    1.02
    """

    threat: Threat = L2_NORM
    steps: int = number(default=50, low=1)
    overshoot: float = number(default=0.02)
    candidates: int = number(default=9, low=1, static=True)
    target: Target = TrueLabel()
    success: Success = static(default=fooled)

    def __post_init__(self):
        super().__post_init__()
        check_norm(self, Linf, L2)

    @override
    def move(
        self, example: Example, walk: BoundaryState, seen: Evaluation
    ) -> tuple[jax.Array, tuple[()]]:
        plane = Plane(seen.gradient, -seen.value, walk.point)
        slope = dual_norm(self.threat, plane.normal)
        length = jnp.where(slope > 0, plane.gain / slope, 0) + NUDGE
        return walk.point + (1 + self.overshoot) * length * self.threat.steepest(plane.normal), ()

    @override
    def done(self, walk: BoundaryState) -> jax.Array:
        return super().done(walk) | jnp.isfinite(walk.distance)
