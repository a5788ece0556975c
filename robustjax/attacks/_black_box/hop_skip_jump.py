"""HopSkipJump: the nearest adversarial image from decisions alone."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example, MinimumNorm
from robustjax.attacks._core.success import Success, fooled, won_by
from robustjax.config import config, number, static
from robustjax.threats import L2, Linf, box_of, with_radius
from robustjax.threats._trees import check_norm
from robustjax.typing import Cost, LogitsFn, Threat

FIND, SHRINK, ESTIMATE, JUMP, GIVE_UP = range(5)
MAX_TRIES = 100
"""The number of random images among which the first adversarial one is sought."""
MAX_HALVINGS = 24
"""A float32 has no more bits."""


class HopSkipJumpState(NamedTuple):
    """The state of `HopSkipJump`; every step makes one query and uses its answer.

    Attributes:
      phase: what the next query is for: FIND a first adversarial image, SHRINK it towards x by
        bisection, ESTIMATE the boundary's normal there, JUMP along it; or GIVE_UP.
      count: queries in this phase.
      turn: the paper's t, from 1; 0 before the first estimate.
      queries: all of them.
      best, distance: the nearest adversarial image so far, and how near; inf for none.
      point: an adversarial image, the far end of the bisection and, after it, x_t.
      low, high: radii around x between which the boundary is met; high is that of `point`.
      normal: sum of phi_b u_b, phi_b = 1 for a success and -1 else; in JUMP the direction.
      mean: sum of u_b.
      wins: how many phi_b are 1.
    """

    phase: jax.Array
    count: jax.Array
    turn: jax.Array
    queries: jax.Array
    best: jax.Array
    distance: jax.Array
    point: jax.Array
    low: jax.Array
    high: jax.Array
    normal: jax.Array
    mean: jax.Array
    wins: jax.Array


@config
class HopSkipJump(MinimumNorm):
    """Walk along the decision boundary, seeing nothing but `success(output, y)`.

    From an adversarial point at the boundary, x_t: the normal v is the mean of (phi_b - mean phi)
    u_b over B_t = samples * sqrt(t) queries at clip(x_t + delta u_b), u_b uniform on the sphere and
    phi_b = +-1 the decision; the jump is x_t + (||x_t - x|| / sqrt(t)) v, or its sign in Linf,
    halved until it is adversarial; a bisection then leads back to the boundary, along the shrinking
    balls around x. delta = gamma ||x_t - x|| / d, 0.1 at first.

    Differences from the paper: the result is the nearest adversarial image that any query has seen,
    not the last x_t; of the random images at the start, every second one is made of the two bounds
    alone; u_b is uniform on the sphere in Linf too, as in the paper's text, not its code; delta
    does not fall below what float32 pixels can resolve; after 24 halvings a jump is given up and
    the normal estimated again, where the original never ends.

    Args:
      threat: the norm, L2 or Linf; its eps plays no part in the search.
      queries: the budget; may be traced.
      samples: queries of the first normal, the paper's B_0.
      gamma: scale of the distance between the queries of a normal, and of the precision of the
        bisection, gamma / d^1.5 of the way in L2 and gamma / d^2 in Linf.
      success: (output, y) -> bool, all that the attack sees. For a class that the caller gives, it
        starts from a random image of that class.

    References: Chen, Jordan, Wainwright, "HopSkipJumpAttack: a query-efficient decision-based
    attack", 2020, Alg. 2.

    Guarantees:
      The result is the clean image or succeeds; it lies in the box.
      A clean image that is misclassified comes back at the cost of one query.
      Where no random image is adversarial, the clean image comes back after 1 + 100 queries.
      Each step is one query, and there are never more than `queries`.
      More queries never lead further away.

    A model that returns nothing but its decision. The result is within 5 % of the smallest
    distance, 0.5 / sqrt(2):

    >>> def decision(x):
    ...     return jax.nn.one_hot(jnp.argmax(x), 2)
    >>> x = jnp.array([[[0.75], [0.25]]])
    >>> attack = jax.jit(rj.attacks.HopSkipJump(queries=1000), static_argnums=0)
    >>> z = attack(decision, jax.random.key(0), x, 0)
    >>> bool(jnp.linalg.norm(z - x) < 1.05 * 0.5 / 2**0.5)
    True
    """

    differentiates = False

    threat: Threat = L2(float("inf"))
    queries: int = number(default=5000, low=1)
    samples: int = number(default=100, low=1)
    gamma: float = number(default=1.0)
    success: Success = static(default=fooled)

    def __post_init__(self):
        check_norm(self, L2, Linf)
        if isinstance(self.threat, L2 | Linf) and self.threat.bounds is None:
            raise ValueError("HopSkipJump needs bounds, between which it draws its first images")

    @override
    def begin(self, logits_fn: LogitsFn, example: Example) -> HopSkipJumpState:
        x, zero = example.x, jnp.zeros((), jnp.int32)
        nowhere = jnp.full((), jnp.inf, x.dtype)
        won = won_by(self.success, logits_fn(x), example)
        distance = jnp.where(won, 0, nowhere)
        flat, near = jnp.zeros_like(x), jnp.zeros_like(nowhere)
        return HopSkipJumpState(
            zero, zero, zero, zero + 1, x, distance, x, near, nowhere, flat, flat, zero
        )

    @override
    def step(
        self, logits_fn: LogitsFn, example: Example, state: HopSkipJumpState
    ) -> HopSkipJumpState:
        query = self._ask(example, state)
        won = won_by(self.success, logits_fn(query), example)
        far = self.threat.distance(query, example.x)
        nearer = won & (far < state.distance)
        state = state._replace(
            count=state.count + 1,
            queries=state.queries + 1,
            best=jnp.where(nearer, query, state.best),
            distance=jnp.where(nearer, far, state.distance),
        )
        tell = (self._found, self._shrunk, self._estimated, self._jumped)
        return jax.lax.switch(state.phase, tell, example.x, state, query, won, far)

    def _ask(self, example: Example, state: HopSkipJumpState) -> jax.Array:
        """The image of the next query, in the box."""
        x, key = example.x, jax.random.fold_in(example.key, state.queries)
        noise = jax.random.normal(key, x.shape, x.dtype)

        low, high = box = box_of(self.threat, x)

        def find():
            uniform = jax.scipy.stats.norm.cdf(noise)
            part = jnp.where(state.count % 2 == 0, uniform, jnp.round(uniform))
            return low + (high - low) * part

        def shrink():
            ball = with_radius(self.threat, (state.low + state.high) / 2)
            return ball.project(state.point, x)

        def estimate():
            direction = L2().steepest(noise * (low < high))
            return jnp.clip(state.point + self._delta(state) * direction, *box)

        def jump():
            length = (
                state.high / jnp.sqrt(jnp.float32(state.turn)) * jnp.float32(0.5) ** state.count
            )
            return jnp.clip(state.point + length * state.normal, *box)

        return jax.lax.switch(state.phase, (find, shrink, estimate, jump))

    def _found(self, x, state, query, won, far):
        out_of_tries = jnp.where(state.count < MAX_TRIES, FIND, GIVE_UP)
        waiting = state._replace(phase=out_of_tries.astype(jnp.int32))
        return _where(won, self._at(state, query, far), waiting)

    def _shrunk(self, x, state, query, won, far):
        middle = (state.low + state.high) / 2
        state = state._replace(
            point=jnp.where(won, query, state.point),
            low=jnp.where(won, state.low, middle),
            high=jnp.where(won, middle, state.high),
        )
        digits = jnp.log2(x.size**self._order / self.gamma)
        ended = state.count >= jnp.clip(jnp.ceil(digits), 1, MAX_HALVINGS)
        return _where(ended, self._next_turn(state), state)

    def _estimated(self, x, state, query, won, far):
        u = (query - state.point) / self._delta(state)
        state = state._replace(
            normal=state.normal + jnp.where(won, u, -u), mean=state.mean + u, wins=state.wins + won
        )
        ended = state.count >= jnp.floor(self.samples * jnp.sqrt(state.turn))
        balance = 2 * state.wins / jnp.float32(state.count) - 1
        both = (state.wins > 0) & (state.wins < state.count)
        normal = state.normal - jnp.where(both, balance, 0) * state.mean
        ready = _enter(state, JUMP)._replace(normal=self.threat.steepest(normal))
        return _where(ended, ready, state)

    def _jumped(self, x, state, query, won, far):
        again = _where(state.count < MAX_HALVINGS, state, self._next_turn(state))
        return _where(won, self._at(state, query, far), again)

    def _at(self, state, query, far):
        """Shrink this adversarial image."""
        return _enter(state, SHRINK)._replace(point=query, low=0 * far, high=far)

    def _next_turn(self, state):
        """Estimate the normal at x_{t+1}."""
        flat = jnp.zeros_like(state.point)
        nothing = {"normal": flat, "mean": flat, "wins": jnp.zeros_like(state.wins)}
        return _enter(state, ESTIMATE)._replace(turn=state.turn + 1, **nothing)

    def _delta(self, state):
        """How far the queries of a normal are from x_t, in L2."""
        size = state.point.size
        visible = size**0.5 * 2.0**-20  # per pixel sixteen times the resolution of a float32
        later = jnp.maximum(self.gamma * state.high / size, visible)
        return jnp.where(state.turn == 1, 0.1, later)

    @property
    def _order(self):
        """The bisection's exactness is gamma / d^order of the way."""
        return 2.0 if isinstance(self.threat, Linf) else 1.5

    @override
    def done(self, state: HopSkipJumpState) -> jax.Array:
        ended = (state.phase == GIVE_UP) | (state.distance == 0)
        return ended | (state.queries >= self.queries)

    @override
    def result(self, example: Example, state: HopSkipJumpState) -> jax.Array:
        return state.best

    @override
    def spent(self, state: HopSkipJumpState) -> Cost:
        return Cost(state.queries, 0)


def _enter(state: HopSkipJumpState, phase: int) -> HopSkipJumpState:
    return state._replace(phase=jnp.full_like(state.phase, phase), count=0 * state.count)


def _where(condition: jax.Array, yes: HopSkipJumpState, no: HopSkipJumpState) -> HopSkipJumpState:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
