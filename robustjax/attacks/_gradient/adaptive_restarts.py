"""Many short ascents from different starts, as many as an image deserves."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.effort import deserved, goal_margin
from robustjax.attacks._core.iterative import Example, Iterative
from robustjax.attacks._core.randomized import Randomized, redraw
from robustjax.attacks._core.success import Success, fooled, is_class, logits_of, won_by
from robustjax.attacks.starts import Corner, Uniform
from robustjax.config import config, number, static
from robustjax.losses import cross_entropy, targeted_dlr
from robustjax.threats import L2, Linf, radius
from robustjax.threats._trees import check_norm
from robustjax.typing import Cost, LogitsFn, Threat

SPREAD, CORNER, CLASS, LABEL, CLEAN = range(5)
"""The kinds of ascents: the first four take turns, after one of the last kind."""
SPREADING = 3
"""The number of first steps that spread the output."""


class AdaptiveState(NamedTuple):
    """The state of `AdaptiveRestarts`.

    Attributes:
      runs: () ascents that have ended.
      steps: () gradients of the present ascent.
      looks: () gradients so far.
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

    runs: jax.Array
    steps: jax.Array
    looks: jax.Array
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
    """Short ascents that differ in start and objective; a hopeless image has few of them.

    An ascent takes `steps` gradients; its steps fall from 2 eps to 0 like a cosine. The first
    ascent begins at the clean image and climbs the margin. The others take turns:

      1. from a uniform point, three steps along random logits, with the label's down and a class's
         up; then the targeted DLR loss of that class;
      2. from a random corner of the ball, the margin;
      3. from a uniform point, the targeted DLR loss of a class;
      4. from a uniform point, the cross-entropy.

    The class is the one, among those visited least, whose logit has come nearest to the label's in
    all ascents so far; no image is looked at for that alone. A class that the caller gives is the
    only one, and all objectives lead there.

    An image has 2 + (runs - 2) (1 - h)^patience ascents, where h is its smallest margin so far
    divided by that of the clean image: most of the budget goes to images near the boundary. On a
    `Randomized` model the margin of a lucky draw counts, but no draw ends the attack.

    Args:
      threat: the ball.
      steps: of each ascent.
      runs: the most ascents of an image.
      patience: the larger it is, the fewer ascents have images that are far from the boundary; 0
        gives all images all ascents.
      success: (output, label) -> bool.

    References:
      Liu et al., "Practical evaluation of adversarial robustness via adaptive auto attack", 2022:
        directed starts, steps along a cosine, and discarding, there by the rank of an image in its
        batch, here by its own margins.
      Tashiro et al., "Diversity can be transferred: output diversification for white- and black-box
        attacks", 2020.

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

    threat: Threat = Linf()
    steps: int = number(default=20, low=SPREADING + 1)
    runs: int = number(default=40, low=2)
    patience: float = number(default=4.0)
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
        zero, no, nothing = jnp.int32(0), jnp.asarray(False), jnp.asarray(-jnp.inf, logits.dtype)
        return AdaptiveState(
            runs=zero,
            steps=zero,
            looks=zero,
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
        random = isinstance(logits_fn, Randomized)
        draw = jax.random.fold_in(jax.random.fold_in(example.key, 1), state.looks)

        def model(z):
            output = redraw(logits_fn, draw)(z)
            return logits_of(output), output

        logits, pull, output = jax.vjp(model, state.x_adv, has_aux=True)
        (gradient,) = pull(self._direction(example, state, logits))
        value = goal_margin(example, logits)
        broken = ~(jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)))
        won = won_by(self.success, output, example) & (not random)
        better = won | (value > state.margin_best)
        seen = state._replace(
            steps=state.steps + 1,
            looks=state.looks + 1,
            x_best=jnp.where(better, state.x_adv, state.x_best),
            margin_best=jnp.where(better, value, state.margin_best),
            margin_clean=jnp.where(state.looks == 0, value, state.margin_clean),
            gaps=jnp.fmax(state.gaps, logits - logits[example.y]),
            won=won,
            broken=state.broken | broken,
        )
        size = radius(self.threat) * (1 + jnp.cos(jnp.pi * self._progress(state)))
        gradient = jnp.where(broken, 0, gradient)
        x_adv = self.threat.step(state.x_adv, gradient, size, example.x)
        moved, fresh = seen._replace(x_adv=x_adv), self._restart(example, seen)
        ends = seen.steps >= self.steps
        return jax.tree.map(lambda a, b: jnp.where(ends, a, b), fresh, moved)

    @override
    def done(self, state: AdaptiveState) -> jax.Array:
        enough = deserved(2, self.runs, state.margin_best, state.margin_clean, self.patience)
        return state.won | ((state.steps == 0) & (state.runs >= enough))

    @override
    def result(self, example: Example, state: AdaptiveState) -> jax.Array:
        return state.x_best

    @override
    def spent(self, state: AdaptiveState) -> Cost:
        return Cost(state.looks, state.looks)

    @override
    def broken(self, state: AdaptiveState) -> jax.Array:
        return state.broken

    def _restart(self, example: Example, state: AdaptiveState) -> AdaptiveState:
        """The state at the start of the next ascent."""
        state = state._replace(runs=state.runs + 1, steps=jnp.zeros_like(state.steps))
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
        aims = (state.kind == SPREAD) | (state.kind == CLASS)
        return state._replace(
            aim=jnp.where(aims, aim, state.aim), visits=state.visits + (aims & (classes == aim))
        )

    def _progress(self, state: AdaptiveState) -> jax.Array:
        """The part of its climb that an ascent has behind it, in [0, 1)."""
        spreading = jnp.where(state.kind == SPREAD, SPREADING, 0)
        return jnp.maximum(state.steps - spreading, 0) / self.steps

    def _direction(self, example: Example, state: AdaptiveState, logits: jax.Array) -> jax.Array:
        """(K,) where the logits are to move: a gradient, or a random direction."""
        kind, aim, y = state.kind, state.aim, jnp.asarray(example.y)
        classes = jnp.arange(logits.size)
        key = jax.random.fold_in(jax.random.fold_in(example.key, 2), state.runs)
        spread = jax.random.uniform(key, logits.shape, logits.dtype, -1, 1)
        spread = jnp.where(classes == y, -1, jnp.where(classes == aim, 1, spread))

        def label(z):
            return cross_entropy(z, y) if example.target is None else -cross_entropy(z, aim)

        margin = jax.grad(lambda z: goal_margin(example, z))(logits)
        towards = jax.grad(targeted_dlr)(logits, (y, aim))
        away = jax.grad(label)(logits)
        objectives = [kind == SPREAD, kind == CLASS, kind == LABEL], [towards, towards, away]
        climb = jnp.select(*objectives, margin)
        return jnp.where((kind == SPREAD) & (state.steps < SPREADING), spread, climb)
