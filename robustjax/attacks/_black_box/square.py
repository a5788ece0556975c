"""Square Attack: random search with squares that shrink; it asks for outputs, never gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._black_box.square_proposals import grid, move, recolour, stripes
from robustjax.attacks._core.iterative import Example, Iterative
from robustjax.attacks._core.randomized import Randomized
from robustjax.attacks._core.success import Success, fooled, won_by
from robustjax.attacks.targets import Goal, Target, TrueLabel, check_chosen_once, goal_of
from robustjax.config import config, number, static
from robustjax.losses import margin
from robustjax.threats import L1, L2, Linf
from robustjax.threats._trees import check_norm
from robustjax.typing import Cost, LogitsFn, Loss, Threat

TARGET = 2**31 - 1
"""Folded into the key that chooses a target; a query folds in its number."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""p is halved after the proposals with these numbers, counted from 0, of 10,000 queries."""


class SquareState(NamedTuple):
    """The state: goal, queries so far, the best point, its value, whether it is a success.

    `broken`: a value was NaN.
    """

    goal: Goal
    queries: jax.Array
    x_best: jax.Array
    value_best: jax.Array
    won: jax.Array
    broken: jax.Array


@config
class Square(Iterative):
    """Random search: change a square of the perturbation, keep the change if the loss rises.

    It starts from vertical stripes of +-eps (Linf) or a grid of bumps (L2, L1). A proposal sets a
    square window of about p H W pixels to x +- eps, one sign per channel (Linf), or moves the norm
    of one window into another, with a bump added there (L2, L1); p shrinks along the way. It ends
    at the first success; on a `Randomized` model, of which it sees one draw, it uses all queries:
    an image that just fools one draw may not fool others.

    Args:
      threat: the ball.
      queries: model calls; may be traced.
      p: the fraction of the image that the first square covers, in (0, 1].
      loss: (output, target) -> scalar, maximised.
      target: which class to leave or to reach when the caller gives none: `attacks.targets`.
      rescale: stretch the schedule of p, made for 10,000 queries, to the number of queries, as the
        paper does; AutoAttack does not.
      success: (output, label) -> bool.

    Differences from the authors' code: windows are drawn per example, not per batch, and reach the
    last row and column too; the start counts as a query; images need not be square nor have five
    pixels a side (the grid has tiles of a fifth of the shorter side, at least a pixel).

    References:
      Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack via
        random search", 2020, Algorithms 1 to 3.
      Croce & Hein, "Mind the box: l1-APGD for sparse adversarial attacks", 2021, Section 4 (L1).

    Guarantees:
      The result lies in the ball and in the box.
      It takes `queries` forward passes, or fewer if it succeeds, and no gradient.

    Two pixels that are the logits. Of the four corners of the ball one swaps their order:

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack = rj.attacks.Square(rj.threats.Linf(0.125), queries=20)
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))
    [0.625 0.75 ]
    """

    differentiates = False

    threat: Threat = Linf()
    queries: int = number(default=5000, low=1)
    p: float = number(default=0.8, high=1.0)
    loss: Loss = static(default=margin)
    target: Target = TrueLabel()
    rescale: bool = static(default=False)
    success: Success = static(default=fooled)

    def __post_init__(self):
        check_norm(self, Linf, L2, L1)
        check_chosen_once(self, wrong=False)

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> SquareState:
        goal = goal_of(self, logits_fn, jax.random.fold_in(example.key, TARGET), example)
        value = jnp.asarray(-jnp.inf, example.x.dtype)
        no = jnp.asarray(False)
        return SquareState(goal, jnp.int32(0), example.x, value, no, no)

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: SquareState) -> SquareState:
        x = example.x
        keys = jax.random.split(jax.random.fold_in(example.key, state.queries))
        linf = isinstance(self.threat, Linf)
        start: Callable[..., jax.Array] = stripes if linf else grid
        propose: Callable[..., jax.Array] = recolour if linf else move
        z = jnp.where(
            state.queries == 0,
            start(keys[0], x, self.threat),
            propose(keys[1], state.x_best, x, self.threat, self._part(state.queries - 1)),
        )
        output = logits_fn(z)
        value = state.goal(output).astype(x.dtype)
        won = won_by(self.success, output, example) & (not isinstance(logits_fn, Randomized))
        better = won | (value > state.value_best)
        return state._replace(
            queries=state.queries + 1,
            x_best=jnp.where(better, z, state.x_best),
            value_best=jnp.where(better, value, state.value_best),
            won=won,
            broken=state.broken | jnp.isnan(value),
        )

    def _part(self, proposals: jax.Array) -> jax.Array:
        """The part of the image that the next window should cover."""
        if self.rescale:
            proposals = proposals / self.queries * 10_000
        halvings = jnp.sum(proposals > jnp.asarray(HALVINGS))
        return self.p * 0.5**halvings

    @override
    def done(self, state: SquareState) -> jax.Array:
        return state.won | (state.queries >= self.queries)

    @override
    def result(self, example: Example, state: SquareState) -> jax.Array:
        return state.x_best

    @override
    def broken(self, state: SquareState) -> jax.Array:
        return state.broken

    @override
    def spent(self, state: SquareState) -> Cost:
        return Cost(state.queries + state.goal.forwards, jnp.int32(0))
