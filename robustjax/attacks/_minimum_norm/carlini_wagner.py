"""The attacks of Carlini and Wagner: Adam in an unbounded space, for L2 and Linf."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._minimum_norm.penalty import Penalty, PenaltyState, Trial
from robustjax.config import config, number
from robustjax.deterministic import ordered_sum
from robustjax.threats import L2, Linf, box_of
from robustjax.threats._trees import check_norm
from robustjax.typing import Threat

ADAM = optax.scale_by_adam()

HALF = 0.55
"""Half the range of tanh, a little more than half the box: pixels on the bounds have a finite
preimage, where tanh still has a slope, so they move like others."""
TINY = 1e-30
"""Avoids 0 / 0 at a pixel that may not change; too small to matter at any other."""


class TanhWalk(NamedTuple):
    """The image before tanh, and Adam's moments."""

    free: jax.Array
    adam: Any


@config
class CarliniWagnerL2(Penalty):
    """min_z ||z - x||_2^2 + c max(0, confidence - gain(z)), z = tanh(w) scaled to the box, by Adam.

    The fields are those of `Penalty`. C&W-hc is confidence=10. To attack a detector, give a
    `loss` that is at least zero where the attack is satisfied (minus a sum of hinges will do) and a
    `success`. To start from another image than x, give the target `StartAt(image, target)`.

    References: Carlini & Wagner, "Towards evaluating the robustness of neural networks", 2017,
    Sec. 5 and 6.1. Their code keeps the step size constant, so iterates jump back and forth
    across the decision boundary; here it falls linearly to zero in each round, and the default is
    200 steps, not 1000. In a round w moves by about steps * step_size / 2 at most; to cross the
    box, a pixel needs 3. Each example has its own test for convergence and its own rounds
    (`binary_search.count`).

    Guarantees:
      The result is the clean image, or has `success` and a gain of at least `confidence`.
      A clean image that counts already is the result.
      Pixels on the bounds move like others.
      A zero gradient moves nothing and makes no NaN.

    Two pixels that are the logits. The nearest image of the other class is 0.5 / sqrt(2) away; a
    gain of 0.25 takes half as much again:

    >>> x, key = jnp.array([[[0.75], [0.25]]]), jax.random.key(0)
    >>> for confidence in (0.0, 0.25):
    ...     attack = rj.attacks.CarliniWagnerL2(confidence=confidence, steps=50)
    ...     attack = jax.jit(attack, static_argnums=0)  # the model
    ...     print(round(float(jnp.linalg.norm(attack(jnp.ravel, key, x, 0) - x)), 2))
    0.35
    0.53
    """

    threat: Threat = L2(float("inf"))
    steps: int = number(default=200, low=1)
    step_size: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        check_norm(self, L2)
        if isinstance(self.threat, L2) and self.threat.bounds is None:
            raise ValueError("CarliniWagnerL2 needs bounds, between which its tanh runs")

    @override
    def start(self, image: jax.Array, x: jax.Array, constant: jax.Array) -> TanhWalk:
        return TanhWalk(self._preimage(image, x), ADAM.init(image))

    @override
    def descend(self, probe: Any, example: Example, state: PenaltyState) -> Trial:
        x, c, height = example.x, state.search.constant, jnp.tanh(state.walk.free)
        half = self._half(x)
        change = half * (height - jnp.tanh(self._preimage(x, x)))  # exactly zero at that of x
        image = jnp.clip(x + change, *box_of(self.threat, x))
        found = probe(image)
        slope = half * (1 - height**2)
        gradient = (2 * change + c * found.gradient) * slope
        walk = _adam(state.walk, gradient, self.fading(state.search))
        objective = ordered_sum((change**2).reshape(-1)) + c * found.lack
        return Trial(walk, image, found, c, objective)

    @override
    def measure(self, z: jax.Array, x: jax.Array) -> jax.Array:
        return L2().distance(z, x)

    def _half(self, x: jax.Array) -> Any:
        low, high = box_of(self.threat, x)
        return HALF * (high - low) + TINY

    def _preimage(self, image, x):
        low, high = box_of(self.threat, x)
        return jnp.arctanh((image - (low + high) / 2) / self._half(x))


@config
class CarliniWagnerLinf(Penalty):
    """min tau such that max(0, confidence - gain(x + tau tanh(w))) is zero for some w, by Adam.

    The fields are those of `Penalty`; `constant` is the first radius tau, and `step_size` is in
    units of w, so that a step is relative to the radius. A round that wins ends at once, and the
    next tau lies between the smallest change that has won and the largest radius that has not.

    References: Carlini & Wagner, "Towards evaluating the robustness of neural networks", 2017,
    Sec. 6.3, who minimise sum_i max(|z_i - x_i| - tau, 0) + c max(0, confidence - gain(z)) for a
    grid of c at every tau, and lower tau by a tenth at a time. Here tanh keeps the change below
    tau, so no c is needed, and bisection finds tau.

    Guarantees:
      As for `CarliniWagnerL2`.

    Two pixels that are the logits; half of their difference is the smallest radius:

    >>> x = jnp.array([[[0.75], [0.25]]])
    >>> z = rj.attacks.CarliniWagnerLinf(steps=50)(jnp.ravel, jax.random.key(0), x, 0)
    >>> round(float(jnp.abs(z - x).max()), 2)
    0.25
    """

    threat: Threat = Linf(float("inf"))
    steps: int = number(default=200, low=1)
    step_size: float = 0.1
    rounds: int = number(default=12, low=1)
    constant: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        check_norm(self, Linf)

    @override
    def start(self, image: jax.Array, x: jax.Array, constant: jax.Array) -> TanhWalk:
        share = self.threat.steepest(jnp.ones_like(x))
        height = jnp.clip((image - x) / (constant * share + TINY), -0.98, 0.98)
        return TanhWalk(jnp.arctanh(height), ADAM.init(image))

    @override
    def descend(self, probe: Any, example: Example, state: PenaltyState) -> Trial:
        x, tau, height = example.x, state.search.constant, jnp.tanh(state.walk.free)
        share = self.threat.steepest(jnp.ones_like(x))
        image = jnp.clip(x + tau * share * height, *box_of(self.threat, x))
        found = probe(image)
        walk = _adam(
            state.walk, share * found.gradient * (1 - height**2), self.fading(state.search)
        )
        enough = jnp.minimum(self.measure(image, x), state.size)
        return Trial(walk, image, found, enough, found.lack)

    @override
    def measure(self, z: jax.Array, x: jax.Array) -> jax.Array:
        return self.threat.distance(z, x)


def _adam(walk: TanhWalk, gradient: jax.Array, size: jax.Array) -> TanhWalk:
    direction: Any
    direction, adam = ADAM.update(gradient, walk.adam)
    return TanhWalk(walk.free - size * direction, adam)
