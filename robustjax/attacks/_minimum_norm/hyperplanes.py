"""The model as a linear classifier: its decision planes, and the nearest point of one in the box.

DeepFool and FAB share it: at a point, the gap z_k - z_y to a rival class k and its gradient define
a hyperplane, and both attacks move to the nearest one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from robustjax.attacks._core.iterative import Example
from robustjax.attacks._core.success import is_class, logits_of
from robustjax.attacks._minimum_norm.boundary import BoundarySearch, Gaps
from robustjax.attacks.targets import Goal, Target, TrueLabel, check_chosen_once, rivals
from robustjax.deterministic import ordered_sum
from robustjax.losses import margin
from robustjax.threats import L1, L2
from robustjax.threats.numerics import knapsack, room
from robustjax.typing import Box, LogitsFn, Threat


class Plane(NamedTuple):
    """The points p with <normal, p - point> = gain.

    Attributes:
      normal: (H, W, C), the gradient of the gap at `point`.
      gain: () by how much the gap falls short of zero at `point`; negative beyond the plane.
      point: (H, W, C).
    """

    normal: jax.Array
    gain: jax.Array
    point: jax.Array

    def lacking(self, point: jax.Array) -> jax.Array:
        """How much the linear gap has to grow to be zero."""
        return self.gain - _inner(self.normal, point - self.point)


class GapSearch(BoundarySearch):
    """A boundary search on the gaps to rival classes: all, the most likely ones, or one.

    For a class that the caller gives, it is the gap between that class and the best other one.
    """

    target: Target
    candidates: int | None = None

    def __post_init__(self):
        check_chosen_once(self)
        if not (self.target.towards or isinstance(self.target, TrueLabel)):
            raise ValueError(
                f"target: {type(self).__name__} leaves the label, so it takes TrueLabel() (all "
                f"wrong classes) or a class to go to, not {type(self.target).__name__}()"
            )

    @override
    def goal(self, logits_fn: LogitsFn, example: Example) -> Gaps | Goal:
        x, y = example.x, jnp.asarray(example.y)
        if example.target is not None:
            if not is_class(example.target):
                raise ValueError(
                    f"{type(self).__name__} goes to a class, so a target is an integer; got "
                    f"{jax.tree.map(jnp.shape, example.target)}"
                )
            return Goal(jnp.asarray(example.target), margin, -1)
        if self.target.towards:
            chosen = self.target(jax.random.fold_in(example.key, 0), x, y, logits_fn)
            return Gaps(chosen[None], y, self.target.forwards)
        classes = logits_of(jax.eval_shape(logits_fn, x)).size
        if self.candidates is None or self.candidates >= classes - 1:
            return Gaps((y + jnp.arange(1, classes)) % classes, y)
        return Gaps(rivals(logits_of(logits_fn(x)), y, self.candidates), y, 1)

    @override
    def remember(self, example: Example) -> tuple[()]:
        return ()


def shift(
    threat: Threat, box: Box, point: jax.Array, normal: jax.Array, gain: jax.Array
) -> jax.Array:
    """The smallest d with <normal, d> = gain and point + d in the box.

    The KKT conditions fix everything but one number. Linf: |d_i| = min(t share_i, room_i), L2:
    |d_i| = min(t |n_i|, room_i), with the t that `_rise` finds; L1: fill the components in the
    order of |n_i|, each up to its room, until the gain is spent. If the box forbids the gain, d
    goes to the corner that comes nearest to it.

    References: Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive
      boundary attack", 2020, Sec. 2.1 and A.
    """
    direction = jnp.sign(normal) * jnp.where(gain < 0, -1, 1)
    space = jnp.where(direction == 0, 0, room(box, point, direction))
    # Of unit size, so that sums of products neither vanish nor overflow.
    scale = jnp.max(jnp.abs(normal))
    scale = jnp.where(scale > 0, scale, 1)
    size, gain = jnp.abs(normal) / scale, jnp.abs(gain) / scale
    if isinstance(threat, L1):
        spent = knapsack(size, size * space, gain)
        length = jnp.minimum(spent / jnp.where(size > 0, size, 1), space)
    else:
        speed = size if isinstance(threat, L2) else threat.steepest(jnp.ones_like(size))
        length = _rise(size, speed, space, gain)
    return direction * length


def _rise(size: jax.Array, speed: jax.Array, space: jax.Array, gain: jax.Array) -> jax.Array:
    """min(t speed, space) for the t at which sum size min(t speed, space) = gain.

    The sum is concave and piecewise linear in t, so Newton's iteration from zero never overshoots,
    and ends exactly once no more components meet the box: a few rounds, and no sort.
    """

    def sums(t):
        free = t * speed < space
        parts = jnp.stack([jnp.where(free, t * speed, space), jnp.where(free, speed, 0), free], -1)
        weights = jnp.stack([size, size, jnp.ones_like(size)], -1)
        return ordered_sum((weights * parts).reshape(-1, 3))

    def newton(carry):
        t, (reached, slope, free) = carry
        t = t + jnp.maximum(gain - reached, 0) / jnp.where(slope > 0, slope, jnp.inf)
        now = sums(t)
        return t, now, now[2] < free

    def body(carry):
        return newton(carry[:2])

    start = jnp.zeros_like(gain)
    carry = jax.lax.while_loop(
        lambda carry: carry[2], body, (start, sums(start), jnp.asarray(True))
    )
    return jnp.minimum(carry[0] * speed, space)


def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
    return ordered_sum((a * b).reshape(-1))
