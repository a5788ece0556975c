"""DeepFool: straight over the nearest linearised decision plane, again and again."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from robustjax.attacks.boundary import Seen, Walk
from robustjax.attacks.iterative import Example
from robustjax.attacks.planes import GapSearch, dual_norm, nearest_plane, rivals, shift
from robustjax.attacks.success import Success, fooled, logits_of
from robustjax.config import check_number, config, static
from robustjax.threats import L1, L2, Linf

L2_NORM = L2(float("inf"))


@config
class DeepFool(GapSearch):
    """The smallest step over the nearest linearised decision plane, until the prediction is wrong.

    x_{k+1} = x_k + d, with the smallest d in the norm such that the linearised gap z_k - z_y rises
    by 1 + overshoot times what it lacks, and x_k + d stays in [0, 1]. Fast, and not the nearest.

    Differences from the paper: the step is the smallest inside the box, where the paper has no box
    and implementations clip afterwards (far from the box they agree), which also gives L1.

    Args:
      threat: the norm; eps is not used.
      steps: largest number of moves; the first adversarial image ends the search.
      overshoot: how far beyond the plane a step goes, relative to its length.
      candidates: how many of the most likely wrong classes of the clean image are looked at, with a
        backward pass each; a class given as the target is the only one.
      success: (output, label) -> bool: what counts as adversarial.

    References: Moosavi-Dezfooli et al., "DeepFool: a simple and accurate method to fool deep neural
      networks", 2016, Algorithm 2.

    Guarantees:
      The result is the clean image or an adversarial one in [0, 1].
      A misclassified clean image is its own result.
      On a linear classifier with at most `candidates` wrong classes, the distance is 1 + overshoot
      times the smallest, away from the box.
      A zero gradient moves nothing and makes no NaN.
    """

    threat: Linf | L2 | L1 = L2_NORM
    steps: int = 50
    overshoot: float = 0.02
    candidates: int = static(9)
    success: Success = static(fooled)

    def __post_init__(self):
        check_number("steps", self.steps)
        check_number("overshoot", self.overshoot)
        check_number("candidates", self.candidates, 1)

    def aim(self, example: Example, output: Any) -> jax.Array:
        """The classes whose planes are looked at."""
        if example.target is not None:
            return jnp.reshape(example.target, 1)
        return rivals(logits_of(output), example.y, self.candidates)

    def move(self, example: Example, walk: Walk, seen: Seen) -> tuple[jax.Array, tuple[()]]:
        """Over the nearest plane."""
        plane = nearest_plane(self.threat, walk.point, seen)
        # A tie lacks nothing but is not won: a millionth of a pixel more breaks it.
        gain = (1 + self.overshoot) * plane.gain + 1e-6 * dual_norm(self.threat, plane.normal)
        return walk.point + shift(self.threat, walk.point, plane.normal, gain), ()

    def done(self, walk: Walk) -> jax.Array:
        """At the first adversarial image, too."""
        return super().done(walk) | jnp.isfinite(walk.distance)
