"""DDN: the direction from the gradient, the norm from the success."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._minimum_norm.boundary import BoundaryState, Evaluation
from robustjax.attacks._minimum_norm.radius_search import RadiusSearch, widest
from robustjax.attacks.targets import Target, TrueLabel
from robustjax.config import config, number, static
from robustjax.losses import cross_entropy
from robustjax.threats import L2
from robustjax.threats._trees import check_norm
from robustjax.typing import Loss, Threat

L2_NORM = L2(float("inf"))


@config
class DDN(RadiusSearch):
    """Walk on a sphere around x that shrinks while the iterate is adversarial and grows otherwise.

      r_{k+1} = r_k (1 - gamma) if x_k is adversarial, else r_k (1 + gamma);
      x_{k+1} = clip(x + r_{k+1} d / ||d||_2),  d = x_k + a_k g / ||g||_2 - x,
    where the step a_k falls from 1 to 0.01 along half a cosine.

    Differences from the paper: pixels are not rounded to multiples of 1/255, and a zero gradient
    causes no random step. As in the authors' later code, r is at most the distance of the farthest
    image in the box.

    Args:
      threat: eps is not used.
      steps: number of moves.
      init_eps: r_0, a distance in L2.
      gamma: relative change of the radius.
      loss: (output, target) -> scalar, maximised.
      target: which class to leave or to reach when the caller gives none: `attacks.targets`.
      success: (output, label) -> bool: what counts as adversarial.

    References: Rony et al., "Decoupling direction and norm for efficient gradient-based L2
      adversarial attacks and defenses", 2019, Algorithm 1.

    Guarantees:
      The result is the clean image or an adversarial one in the box.
      A misclassified clean image is its own result.
      On a linear classifier of two classes, or of more with loss=margin, the median distance is
      within 1 % of the smallest after 300 steps.
      A zero gradient moves nothing and makes no NaN.

    Two pixels that are the logits. The nearest image of the other class has two equal pixels, at
    a distance of 0.5 / sqrt(2):

    >>> x = jnp.array([[[0.75], [0.25]]])
    >>> z = rj.attacks.DDN()(jnp.ravel, jax.random.key(0), x, 0)
    >>> round(float(jnp.linalg.norm(z - x)), 3)
    0.354
    """

    threat: Threat = L2_NORM
    steps: int = number(default=300, low=1)
    init_eps: float = number(default=1.0, low=1e-6)
    gamma: float = number(default=0.05, high=1.0)
    loss: Loss = static(default=cross_entropy)
    target: Target = TrueLabel()
    success: Success = static(default=fooled)

    def __post_init__(self):
        super().__post_init__()
        check_norm(self, L2)

    @override
    def remember(self, example: Example) -> jax.Array:
        return jnp.asarray(self.init_eps, example.x.dtype)

    @override
    def move(
        self, example: Example, walk: BoundaryState, seen: Evaluation
    ) -> tuple[jax.Array, jax.Array]:
        radius = walk.memory * jnp.where(seen.won, 1 - self.gamma, 1 + self.gamma)
        radius = jnp.minimum(radius, widest(self.threat, example.x))
        d = self.ascend(walk, seen) - example.x
        return example.x + radius * self.threat.steepest(d), radius
