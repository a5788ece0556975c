"""FMN: the fast minimum-norm attack, in L0, L1, L2 and Linf."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._minimum_norm.boundary import NUDGE, BoundaryState, Evaluation, dual_norm
from robustjax.attacks._minimum_norm.radius_search import RadiusSearch, annealed, widest
from robustjax.attacks.targets import Target, TrueLabel
from robustjax.config import config, number, static
from robustjax.losses import margin
from robustjax.threats import L0, Linf, with_radius
from robustjax.typing import Loss, Threat

LINF = Linf(float("inf"))


@config
class FMN(RadiusSearch):
    """Projected gradient ascent in a ball whose radius closes in on the decision boundary.

    While nothing is adversarial yet, r = (1 + c_k) (||x_k - x|| + |loss| / ||g||_dual), just beyond
    the boundary of the linearised loss. From then on r shrinks to min(r (1 - c_k), the best
    distance) where x_k is adversarial and grows to r (1 + c_k) where it is not; then
      x_{k+1} = P_r(x_k + a_k g / ||g||_2),
    with the exact projection P_r onto ball and box. a_k falls from 1 to 0.01 and c_k from gamma to
    0.001, along half a cosine. In L0 r counts pixels, changes by one at least, and begins at 1.

    Differences from the paper: the projection is the exact one onto ball and box together; the
    first radius has the factor 1 + c_k, without which the iterates approach the boundary of a
    linear model and never cross it; L0 counts pixels (positions), not components: see `threats.L0`.

    Args:
      threat: the norm; eps is not used.
      steps: number of moves.
      gamma: first relative change of the radius.
      loss: (output, target) -> scalar, maximised; zero on the decision boundary.
      target: which class to leave or to reach when the caller gives none: `attacks.targets`.
      success: (output, label) -> bool: what counts as adversarial.

    References: Pintor et al., "Fast minimum-norm adversarial attacks through adaptive norm
      constraints", 2021, Algorithm 1.

    Guarantees:
      The result is the clean image or an adversarial one in the box.
      A misclassified clean image is its own result.
      On a linear classifier the median distance is within 1 % of the smallest after 300 steps; in
      L0, within one pixel.
      A zero gradient makes no NaN.

    Two pixels that are the logits. In L1 the nearest image of the other class is as far away as the
    pixels differ:

    >>> x = jnp.array([[[0.75], [0.25]]])
    >>> attack = rj.attacks.FMN(rj.threats.L1(float("inf")), steps=100)
    >>> z = attack(jnp.ravel, jax.random.key(0), x, 0)
    >>> round(float(jnp.abs(z - x).sum()), 2)
    0.5
    """

    threat: Threat = LINF
    steps: int = number(default=300, low=1)
    gamma: float = number(default=0.05, high=1.0)
    loss: Loss = static(default=margin)
    target: Target = TrueLabel()
    success: Success = static(default=fooled)

    @override
    def remember(self, example: Example) -> jax.Array:
        return jnp.ones((), example.x.dtype)

    @override
    def move(
        self, example: Example, walk: BoundaryState, seen: Evaluation
    ) -> tuple[jax.Array, jax.Array]:
        x = example.x
        radius = jnp.minimum(self._radius(x, walk, seen), widest(self.threat, x))
        ball = with_radius(self.threat, radius)
        return ball.project(self.ascend(walk, seen), x), radius

    def _radius(self, x: jax.Array, walk: BoundaryState, seen: Evaluation) -> jax.Array:
        gamma = annealed(self.gamma, 0.001, walk.taken / jnp.maximum(self.steps, 1))
        smaller, larger = walk.memory * (1 - gamma), walk.memory * (1 + gamma)
        if isinstance(self.threat, L0):
            smaller = jnp.maximum(jnp.minimum(jnp.floor(smaller), walk.memory - 1), 1)
            larger = jnp.maximum(jnp.floor(larger), walk.memory + 1)
        else:
            slope = dual_norm(self.threat, seen.gradient)
            boundary = self.threat.distance(walk.point, x) + jnp.abs(seen.value) / slope
            searching = ~jnp.isfinite(walk.distance) & (slope > 0)
            larger = jnp.where(searching, jnp.maximum(boundary * (1 + gamma), NUDGE), larger)
        return jnp.where(seen.won, jnp.minimum(smaller, walk.distance), larger)
