"""Square Attack with as many queries as an image deserves."""

from __future__ import annotations

from typing import NamedTuple

import jax
from typing_extensions import override

from robustjax.attacks._black_box.square import Square, SquareState
from robustjax.attacks._core.effort import effort
from robustjax.attacks._core.iterative import Example
from robustjax.config import config, number, static
from robustjax.typing import Cost, LogitsFn


class PatientState(NamedTuple):
    """The state of the search, and the loss at the clean image."""

    search: SquareState
    value_clean: jax.Array


@config
class PatientSquare(Square):
    """`Square` that gives up early on images far from the boundary.

    After q queries it ends where q >= least + (queries - least) (1 - h)^patience, with h the margin
    that is left, divided by that of the clean image. The squares shrink as for `queries` queries
    (`rescale`). The loss is one that is negative until the attack succeeds, such as `margin`.

    Args:
      least: the fewest queries of an image that resists.
      patience: the larger it is, the fewer images have all queries; 0 gives them to every image.

    Guarantees:
      The result lies in the ball and in the box.
      It takes at most `queries` forward passes and one more, and no gradient.

    Two pixels that are the logits. Of the four corners of the ball one swaps their order:

    >>> x = jnp.array([[[0.75], [0.625]]])
    >>> attack = rj.attacks.PatientSquare(rj.threats.Linf(0.125), queries=20, patience=0)
    >>> print(jnp.ravel(attack(jnp.ravel, jax.random.key(0), x, 0)))
    [0.625 0.75 ]
    """

    least: int = number(default=350, low=1)
    patience: float = number(default=10.0)
    rescale: bool = static(default=True)

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> PatientState:
        search = super().begin(logits_fn, example)
        return PatientState(search, search.goal(logits_fn(example.x)).astype(example.x.dtype))

    @override
    def step(self, logits_fn: LogitsFn, example: Example, state: PatientState) -> PatientState:
        return state._replace(search=super().step(logits_fn, example, state.search))

    @override
    def done(self, state: PatientState) -> jax.Array:
        search, clean = state
        enough = effort(self.least, self.queries, search.value_best, clean, self.patience)
        return super().done(search) | (search.queries >= enough)

    @override
    def result(self, example: Example, state: PatientState) -> jax.Array:
        return super().result(example, state.search)

    @override
    def broken(self, state: PatientState) -> jax.Array:
        return super().broken(state.search)

    @override
    def spent(self, state: PatientState) -> Cost:
        forwards, backwards = super().spent(state.search)
        return Cost(forwards + 1, backwards)
