"""Many short ascents from different starts, as many as an image deserves."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.effort import effort
from robustjax.attacks._core.iterative import Example, Iterative
from robustjax.attacks._core.randomized import Randomized, expected
from robustjax.attacks._core.success import Success, fooled, is_class, won_by
from robustjax.attacks.starts import Corner, Uniform
from robustjax.attacks.targets import Goal, TrueLabel, goal_of
from robustjax.config import config, number, static
from robustjax.losses import cross_entropy, margin, targeted_dlr
from robustjax.outputs import float_logits, logits_of
from robustjax.threats import L2, Linf, radius
from robustjax.threats._trees import check_norm
from robustjax.typing import Cost, LogitsFn, Threat

CLASS, CORNER, LABEL, CLEAN = range(4)
"""The kinds of ascents: one of the last kind, then the others in turn."""


class AdaptiveState(NamedTuple):
    """The state of `AdaptiveRestarts`.

    Attributes:
      goal: the margin that decides: of any wrong class, or of the class that the caller gives.
      runs: () ascents that have ended.
      looks: () gradients so far.
      cost: model calls so far.
      x_adv: (H, W, C), the next image to look at.
      x_best: the image with the largest margin of all ascents; the adversarial one once `won`.
      margin_best: its margin, negative until the goal is reached.
      margin_clean: the margin of the clean image.
      gaps: (K,) the largest z_j - z_y of any image.
      visits: (K,) the ascents that went to each class.
      aim: () the class to which the present ascent goes.
      won: x_best is a success.
      broken: a margin or a gradient was NaN or infinite.
    """

    goal: Goal
    runs: jax.Array
    looks: jax.Array
    cost: Cost
    x_adv: jax.Array
    x_best: jax.Array
    margin_best: jax.Array
    margin_clean: jax.Array
    gaps: jax.Array
    visits: jax.Array
    aim: jax.Array
    won: jax.Array
    broken: jax.Array

    @property
    def kind(self) -> jax.Array:
        """The kind of the present ascent."""
        return jnp.where(self.runs > 0, (self.runs - 1) % CLEAN, CLEAN)


@config
class AdaptiveRestarts(Iterative):
    """Short ascents that differ in start and objective; an image far from the boundary has few.

    An ascent takes `steps` gradients; its steps fall from 2 eps to 0 like a cosine. The first one
    begins at the clean image and climbs the margin. The others take turns:

      1. from a uniform point of the ball, the targeted DLR loss of a class;
      2. from a random corner of the ball, the margin;
      3. from a uniform point, the cross-entropy.

    The class is the one, among those visited least, whose logit has come nearest to the label's in
    all ascents so far; this takes no model call. A class that the caller gives is the only one, and
    all objectives lead there.

    An image has 2 + (runs - 2) (1 - h)^patience ascents, where h is the margin that is left,
    divided by that of the clean image: most of the budget goes to images near the boundary. On a
    `Randomized` model the margin of a lucky draw counts, but no draw ends the attack.

    Args:
      threat: the ball.
      steps: of each ascent.
      runs: the most ascents of an image.
      patience: the larger it is, the fewer ascents have images that are far from the boundary; 0
        gives all images all ascents.
      eot: number of draws of a `Randomized` model over which the outputs of each step are averaged.
      success: (output, label) -> bool.

    References:
      Liu et al., "Practical evaluation of adversarial robustness via adaptive auto attack", 2022:
        restarts along a cosine, targets ordered by statistics, and discarding, there by the rank of
        an image in its batch, here by its own margins. Their starts along random logits are left
        out: ascents to a class found more at the same cost.

    Guarantees:
      The result lies in the ball and in the box.
      The result does not depend on the other images.
      It takes as many forward as backward passes, at most steps * runs.

    Two pixels that are the logits; the attack ends at its first success:

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack, key = rj.attacks.AdaptiveRestarts(rj.threats.Linf(0.125)), jax.random.key(0)
    >>> int(jnp.argmax(attack(jnp.ravel, key, x, 0)))
    1
    """

    loss = staticmethod(margin)
    target = TrueLabel()

    threat: Threat = Linf()
    steps: int = number(default=20, low=1)
    runs: int = number(default=15, low=2)
    patience: float = number(default=4.0)
    eot: int = number(default=1, low=1, static=True)
    success: Success = static(default=fooled)

    def __post_init__(self):
        check_norm(self, Linf, L2)

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> AdaptiveState:
        if example.target is not None and not is_class(example.target):
            raise ValueError(
                "AdaptiveRestarts goes to a class, so a target is an integer; got "
                f"{jax.tree.map(jnp.shape, example.target)}"
            )
        logits = logits_of(jax.eval_shape(logits_fn, example.x))
        zero, no = jnp.int32(0), jnp.asarray(False)
        nothing = jnp.asarray(-jnp.inf, jnp.promote_types(logits.dtype, jnp.float32))
        return AdaptiveState(
            goal=goal_of(self, logits_fn, example.key, example),
            runs=zero,
            looks=zero,
            cost=Cost(zero, zero),
            x_adv=example.x,
            x_best=example.x,
            margin_best=nothing,
            margin_clean=nothing,
            gaps=jnp.full(logits.shape, nothing),
            visits=jnp.zeros(logits.shape, jnp.int32),
            aim=zero,
            won=no,
            broken=no,
        )

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: AdaptiveState) -> AdaptiveState:
        draw = jax.random.fold_in(jax.random.fold_in(example.key, 1), state.looks)

        def model(z):
            output = expected(lambda f: f(z), logits_fn, draw, self.eot)
            return float_logits(output), output

        logits, pull, output = jax.vjp(model, state.x_adv, has_aux=True)
        (gradient,) = pull(self._direction(example, state, logits))
        value = state.goal(output)
        broken = ~(jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)))
        random = isinstance(logits_fn, Randomized)
        calls = state.cost.forwards + (self.eot if random else 1)
        won = won_by(self.success, output, example) & (not random)
        better = won | (value > state.margin_best)
        seen = state._replace(
            looks=state.looks + 1,
            cost=Cost(calls, calls),
            x_best=jnp.where(better, state.x_adv, state.x_best),
            margin_best=jnp.where(better, value, state.margin_best),
            margin_clean=jnp.where(state.looks == 0, value, state.margin_clean),
            gaps=jnp.fmax(state.gaps, logits - logits[example.y]),
            won=won,
            broken=state.broken | broken,
        )
        taken = state.looks - state.runs * self.steps
        size = radius(self.threat) * (1 + jnp.cos(jnp.pi * taken / self.steps))
        gradient = jnp.where(broken, 0, gradient)
        moved = seen._replace(x_adv=self.threat.step(state.x_adv, gradient, size, example.x))
        ends = taken + 1 >= self.steps
        return jax.tree.map(lambda a, b: jnp.where(ends, a, b), self._restart(example, seen), moved)

    @override
    def done(self, state: AdaptiveState) -> jax.Array:
        enough = effort(2, self.runs, state.margin_best, state.margin_clean, self.patience)
        between = state.looks == state.runs * self.steps
        return state.won | (between & (state.runs >= enough))

    @override
    def result(self, example: Example, state: AdaptiveState) -> jax.Array:
        return state.x_best

    @override
    def spent(self, state: AdaptiveState) -> Cost:
        return state.cost

    @override
    def broken(self, state: AdaptiveState) -> jax.Array:
        return state.broken

    def gradient(
        self, logits_fn: LogitsFn, x: jax.Array, goal: Goal, key: jax.Array | None = None
    ) -> jax.Array:
        """The gradient of the margin at `x`, as `PGD.gradient`."""
        return jax.grad(lambda z: goal(expected(lambda f: f(z), logits_fn, key, self.eot)))(x)

    def _restart(self, example: Example, state: AdaptiveState) -> AdaptiveState:
        """The state at the start of the next ascent."""
        state = state._replace(runs=state.runs + 1)
        keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(example.key, 0), state.runs))
        uniform = Uniform()(keys[0], example.x, self.threat)
        corner = Corner(1.0)(keys[1], example.x, self.threat)
        state = state._replace(x_adv=jnp.where(state.kind == CORNER, corner, uniform))
        if example.target is not None:
            return state._replace(aim=jnp.asarray(example.target, jnp.int32))
        classes = jnp.arange(state.visits.size)
        visits = jnp.where(classes == example.y, jnp.iinfo(jnp.int32).max, state.visits)
        gaps = jnp.where(visits == jnp.min(visits), jnp.nan_to_num(state.gaps), -jnp.inf)
        aim = jnp.argmax(gaps).astype(jnp.int32)
        visited = (state.kind == CLASS) & (classes == aim)
        return state._replace(aim=aim, visits=state.visits + visited)

    def _direction(self, example: Example, state: AdaptiveState, logits: jax.Array) -> jax.Array:
        """(K,) the gradient of this ascent's objective with respect to the logits."""
        y, kind = jnp.asarray(example.y), state.kind
        target = None if example.target is None else state.aim

        def label(z):
            return cross_entropy(z, y) if target is None else -cross_entropy(z, target)

        return jnp.select(
            [kind == CLASS, kind == LABEL],
            [jax.grad(targeted_dlr)(logits, (y, state.aim)), jax.grad(label)(logits)],
            jax.grad(state.goal)(logits),
        )
