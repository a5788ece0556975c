"""The Jacobian-based saliency map attack: one component at a time."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example, Iterative
from robustjax.attacks._core.success import Success, fooled, won_by
from robustjax.attacks.targets import Goal, LeastLikely, Target, check_chosen_once, goal_of
from robustjax.config import config, number, static
from robustjax.losses import cross_entropy
from robustjax.threats import L0, box_of
from robustjax.threats._trees import check_norm
from robustjax.typing import Cost, LogitsFn, Loss, Threat


class JSMAState(NamedTuple):
    """State of `JSMA`.

    Attributes:
      goal: what is maximised.
      image: (H, W, C).
      gain: (H, W, C) what the objective gains by raising each component, to first order.
      won: () of the image.
      stuck: () no change that is allowed helps.
      broken: () an objective or a gradient was NaN.
      steps: () so far.
    """

    goal: Goal
    image: jax.Array
    gain: jax.Array
    won: jax.Array
    stuck: jax.Array
    broken: jax.Array
    steps: jax.Array


@config
class JSMA(Iterative):
    """Repeatedly change, by theta, the one component that raises the target class most.

    With F the softmax, dt = dF_t / dx_i and do = sum_{j != t} dF_j / dx_i, the candidates have
    dt >= 0 and do <= 0, the best has the largest dt |do|, and where there is no candidate, the
    largest dt - do. As the F_j sum to one, do = -dt: all three say the largest dt, which is where
    d log F_t / dx_i is largest too. So JSMA is greedy ascent of log F_t, minus the cross-entropy,
    whose gradient does not vanish when F_t does; and any other loss of a class may take its place.

    Args:
      threat: how many pixels may change.
      theta: what is added to a component, which is then clipped to the box; may be negative.
      gamma: steps, as a fraction of the number of components.
      pair: change the best two components in every step, as Papernot et al. do. Their search over
        all pairs for the largest (dt_i + dt_j)^2 is this, by the same identity.
      loss: (output, target) -> scalar that falls towards the target class.
      success: (output, true label) -> bool; the attack ends there.
      target: which class to reach or to leave when the caller gives none: `attacks.targets`.

    References: Papernot et al., "The limitations of deep learning in adversarial settings", 2016,
    Alg. 2 and 3; one component at a time as in Pang et al., "Towards robust detection of
    adversarial examples", 2018. They continue until the target class is reached. A component
    leaves the search when it meets the box; one that gains nothing is never changed.

    Guarantees:
      The result lies in the ball and in the box; at most gamma H W C components (twice as many with
        `pair`) are changed.
      On a linear model the components are changed in the order of the gain per unit.
      A zero gradient moves nothing and makes no NaN.

    Three pixels that are the logits. The pixel of the least likely class becomes white:

    >>> x = jnp.array([[[0.875], [0.5], [0.25]]])
    >>> attack = jax.jit(rj.attacks.JSMA(gamma=1.0), static_argnums=0)
    >>> z = attack(jnp.ravel, jax.random.key(0), x, 0)
    >>> print(jnp.ravel(z))
    [0.875 0.5   1.   ]
    """

    threat: Threat = L0(100.0)
    theta: float = number(default=1.0, low=-1, high=1)
    gamma: float = number(default=0.1, low=0, high=1)
    pair: bool = static(default=False)
    loss: Loss = static(default=cross_entropy)
    success: Success = static(default=fooled)
    target: Target = LeastLikely()

    def __post_init__(self):
        check_norm(self, L0)
        check_chosen_once(self)

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> JSMAState:
        goal = goal_of(self, logits_fn, jax.random.fold_in(example.key, 0), example)
        no = jnp.asarray(False)
        state = JSMAState(goal, example.x, example.x, no, no, no, jnp.int32(0))
        return self._look(logits_fn, example, state)

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: JSMAState) -> JSMAState:
        image, gain, box = state.image, state.gain, box_of(self.threat, example.x)
        for _ in range(1 + self.pair):
            chosen = self._choose(image, gain, example.x)
            image = jnp.where(chosen, jnp.clip(image + self.theta, *box), image)
            gain = jnp.where(chosen, 0, gain)
        stuck = jnp.all(image == state.image)
        state = state._replace(image=image, stuck=stuck, steps=state.steps + 1)
        return self._look(logits_fn, example, state)

    @override
    def done(self, state: JSMAState) -> jax.Array:
        budget = jnp.floor(self.gamma * state.image.size + 1e-3)  # a float32 fraction of a count
        return state.won | state.stuck | (state.steps >= budget)

    @override
    def result(self, example: Example, state: JSMAState) -> jax.Array:
        return state.image

    @override
    def broken(self, state: JSMAState) -> jax.Array:
        return state.broken

    @override
    def spent(self, state: JSMAState) -> Cost:
        return Cost(1 + state.goal.forwards + state.steps, 1 + state.steps)

    def _look(self, logits_fn, example, state):
        def objective(image):
            output = logits_fn(image)
            return state.goal(output).astype(image.dtype), won_by(self.success, output, example)

        (value, won), gradient = jax.value_and_grad(objective, has_aux=True)(state.image)
        broken = jnp.isnan(value) | ~jnp.all(jnp.isfinite(gradient))
        return state._replace(
            gain=jnp.sign(self.theta) * gradient, won=won, broken=state.broken | broken
        )

    def _choose(self, image, gain, x):
        """A mask of the one component that gains most, of those that may change; empty if none."""
        changed = jnp.any(image != x, axis=-1, keepdims=True)
        free = changed | (jnp.sum(changed) + 1 <= self.threat.eps)
        low, high = box_of(self.threat, x)
        movable = jnp.where(self.theta > 0, image < high, image > low)
        score = jnp.where(free & movable & (gain > 0), gain, 0)
        first = jnp.arange(score.size) == jnp.argmax(score)
        return first.reshape(score.shape) & (score > 0)
