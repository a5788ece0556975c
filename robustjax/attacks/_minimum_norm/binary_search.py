"""Binary search, per example, over a constant: the weight c of an objective, or a radius."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

MIN_CONSTANT = 1e-12
"""The smallest first constant: the search multiplies it by ten, and zero would stay zero."""


class Search(NamedTuple):
    """State of the search for one example.

    Attributes:
      constant: the constant of this round.
      low, high: the largest that failed and the smallest that sufficed; 0 and inf at first.
      won: whether this round has won since its last check.
      objective: what this round minimises, at its last check.
      step: steps of this round so far.
      rounds: completed rounds.
    """

    constant: jax.Array
    low: jax.Array
    high: jax.Array
    won: jax.Array
    objective: jax.Array
    step: jax.Array
    rounds: jax.Array


def begin(constant: jax.Array | float) -> Search:
    """The state before the first round, which uses this constant."""
    zero, infinity = jnp.zeros_like(constant), jnp.full_like(constant, jnp.inf)
    none = jnp.int32(0)
    return Search(jnp.asarray(constant), zero, infinity, jnp.asarray(False), infinity, none, none)


def count(
    search: Search,
    won: jax.Array,
    enough: jax.Array,
    objective: jax.Array,
    steps: int | jax.Array,
) -> tuple[Search, jax.Array]:
    """Count one step of a round of at most `steps`: (search, whether the round is over).

    There is a check after every tenth of a round. The round is over once the objective is zero, or
    once a tenth has changed it by less than a ten-thousandth. The round is won if a step has won
    since the last check: a long first step may win with any constant and proves nothing. The next
    constant is halfway between the largest that failed and the smallest that sufficed, or ten times
    as large while none has sufficed.

    Args:
      search: where the search is.
      won: () whether this step's image counts.
      enough: () the constant that suffices if the round is over and won.
      objective: () what the round minimises, at this step.
      steps: of a round.

    References: Carlini & Wagner, "Towards evaluating the robustness of neural networks", 2017,
    Sec. 5, and their code, which counts a win at any step of the round, and continues a whole batch
    for as long as one of its examples makes progress.
    """
    check = search.step % jnp.maximum(-(-steps // 10), 1) == 0
    won = won | (search.won & ~check)
    change = jnp.abs(objective - search.objective)
    stalled = check & (search.step > 0) & ~(change > 1e-4 * jnp.abs(objective))
    over = stalled | (objective == 0) | (search.step + 1 >= steps)
    low = jnp.where(over & ~won, jnp.maximum(search.low, search.constant), search.low)
    high = jnp.where(over & won, jnp.minimum(search.high, enough), search.high)
    middle = jnp.where(jnp.isinf(high), 10 * search.constant, (low + high) / 2)
    now = Search(
        constant=jnp.where(over, middle, search.constant),
        low=low,
        high=high,
        won=won & ~over,
        objective=jnp.where(check, objective, search.objective),
        step=jnp.where(over, 0, search.step + 1),
        rounds=search.rounds + over,
    )
    return now, over
