"""The elastic-net attack: iterative shrinkage and thresholding with momentum."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._minimum_norm.penalty import Penalty, PenaltyState, Trial
from robustjax.config import config, number, static
from robustjax.deterministic import ordered_sum
from robustjax.threats import L1, L2, box_of
from robustjax.threats._trees import check_norm
from robustjax.typing import Cost, Threat


class FISTAWalk(NamedTuple):
    """The iterate, and the point ahead of it where the gradient is taken."""

    image: jax.Array
    ahead: jax.Array


@config
class EAD(Penalty):
    """min_z ||z - x||_2^2 + beta ||z - x||_1 + c max(0, confidence - gain(z)) over the box.

    FISTA: a gradient step from an extrapolated point, soft thresholding by step * beta, and a clip;
    the step size decays like a square root. Fields as in `Penalty`, and:

    Args:
      beta: the weight of the L1 norm.
      rule: how changes are compared: 'EN', by the whole elastic net, or 'L1', by the L1 norm.

    References: Chen et al., "EAD: elastic-net attacks to deep neural networks via adversarial
    examples", 2018, Alg. 1. There and in their code the threshold is beta, not step * beta: at
    their first step of 0.01, their beta = 0.01 gives the L1 norm a weight of 1. As the steps
    shrink, the mean weight over a round is 2, the default here.

    Guarantees:
      As for `CarliniWagnerL2`.

    Two pixels, of which the second counts three times as much: the L1 norm leaves the first alone.

    >>> def logits_fn(x):
    ...     return jnp.ravel(x) * jnp.array([1.0, 3.0])
    >>> x = jnp.array([[[0.75], [0.125]]])
    >>> z = rj.attacks.EAD(steps=100)(logits_fn, jax.random.key(0), x, 0)
    >>> print(jnp.ravel(z - x).round(3))
    [0.    0.125]
    """

    threat: Threat = L1(float("inf"))
    beta: float = number(default=2.0)
    rule: Literal["EN", "L1"] = static(default="EN")

    def __post_init__(self):
        super().__post_init__()
        check_norm(self, L1, L2)

    @override
    def start(self, image: jax.Array, x: jax.Array, constant: jax.Array) -> FISTAWalk:
        return FISTAWalk(image, image)

    @override
    def descend(self, probe: Any, example: Example, state: PenaltyState) -> Trial:
        x, c, k = example.x, state.search.constant, state.search.step
        image, ahead = state.walk
        size = self.step_size * jnp.sqrt(1 - k / self.steps)
        change = ahead - x - size * (2 * (ahead - x) + c * probe(ahead).gradient)
        change = jnp.sign(change) * jnp.maximum(jnp.abs(change) - size * self.beta, 0)
        box = box_of(self.threat, x)
        new = jnp.clip(x + change, *box)
        ahead = jnp.clip(new + k / (k + 3) * (new - image), *box)
        found = probe(new)
        return Trial(FISTAWalk(new, ahead), new, found, c, self._elastic(new, x) + c * found.lack)

    @override
    def measure(self, z: jax.Array, x: jax.Array) -> jax.Array:
        return self._elastic(z, x) if self.rule == "EN" else L1().distance(z, x)

    @override
    def spent(self, state: PenaltyState) -> Cost:
        return Cost(1 + state.goal.forwards + 2 * state.steps, state.steps)

    def _elastic(self, z, x):
        change = z - x
        return ordered_sum((change**2 + self.beta * jnp.abs(change)).reshape(-1))
