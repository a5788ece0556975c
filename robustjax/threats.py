"""Threat models: a norm lives here and nowhere else. Written for one image x (H, W, C) in [0, 1].

A threat is the ball {z : ||z - x|| <= eps} intersected with the pixel box [0, 1]; x lies in both.
`project` is the exact Euclidean projection onto the intersection: clipping after the ball reaches
only 0.991 to 0.999 of the optimum in L2. `step` is what projected gradient ascent repeats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.config import config, number
from robustjax.deterministic import ordered_sum
from robustjax.typing import Scalar

T = TypeVar("T")
_TINY = 1e-30


@config
class Linf:
    """Every component may change by at most eps (pixels in [0, 1]).

    Raises:
      ValueError: eps is negative or, unless infinite, larger than 2: that is in grey levels.
    """

    eps: float = number(default=8 / 255)

    def __post_init__(self):
        # Pixels differ by 1 at most, and robustness curves go to twice an eps.
        if isinstance(self.eps, int | float | np.number) and 2 < self.eps < math.inf:
            raise ValueError(
                f"pixels lie in [0, 1], and so does eps in linf; is {self.eps:g}/255 meant?"
            )

    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The nearest point in the ball around `x` and in [0, 1]: a clip per component."""
        return jnp.clip(x_adv, jnp.maximum(x - self.eps, 0), jnp.minimum(x + self.eps, 1))

    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Uniform in the ball, then clipped to [0, 1]."""
        return self.project(x + jax.random.uniform(key, x.shape, x.dtype, -self.eps, self.eps), x)

    def steepest(self, gradient: jax.Array) -> jax.Array:
        """sign(g); zero where the gradient is zero."""
        return jnp.sign(gradient)

    def step(self, x_adv: jax.Array, gradient: jax.Array, size: Scalar, x: jax.Array) -> jax.Array:
        """Move by `size` along the steepest direction and project."""
        return self.project(x_adv + size * self.steepest(gradient), x)

    def distance(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """max |x_adv - x|."""
        return jnp.max(jnp.abs(x_adv - x))


@config
class L2:
    """The Euclidean norm of the change is at most eps (pixels in [0, 1])."""

    eps: float = number(default=0.5)

    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The nearest point in the ball around `x` and in [0, 1].

        The KKT conditions give z(s) = clip(x + s (x_adv - x), 0, 1) with one multiplier s <= 1, the
        largest whose norm is at most eps. Bisection finds which components are clipped, and then s
        is closed form: s^2 = (eps^2 - sum of clipped rooms^2) / sum of free differences^2.
        """
        d = x_adv - x
        room = _room(x, d)
        length = jnp.abs(d)

        def norm(s):
            return _norm(jnp.minimum(s * length, room))

        low = jnp.minimum(self.eps / jnp.maximum(_norm(d), _TINY), 1)
        s = _bisect(lambda s: norm(s) <= self.eps, low, jnp.ones_like(low))
        free = s * length < room
        rest = self.eps**2 - _total(jnp.where(free, 0, room) ** 2)
        exact = jnp.sqrt(jnp.maximum(rest, 0) / _positive(_total(jnp.where(free, d, 0) ** 2)))
        s = jnp.where(norm(1.0) <= self.eps, 1.0, jnp.where(jnp.any(free), exact, s))
        return displaced(x, jnp.sign(d) * jnp.minimum(s * length, room))

    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Uniform in the ball, then projected."""
        key_direction, key_radius = jax.random.split(key)
        direction = self.steepest(jax.random.normal(key_direction, x.shape, x.dtype))
        radius = self.eps * jax.random.uniform(key_radius, (), x.dtype) ** (1 / x.size)
        return self.project(x + radius * direction, x)

    def steepest(self, gradient: jax.Array) -> jax.Array:
        """g / ||g||_2; zero for a zero gradient."""
        # Scaled first, so that the squares of tiny or huge gradients neither vanish nor overflow.
        scaled = gradient / _positive(jnp.max(jnp.abs(gradient)))
        return scaled / _positive(_norm(scaled))

    def step(self, x_adv: jax.Array, gradient: jax.Array, size: Scalar, x: jax.Array) -> jax.Array:
        """Move by `size` along the steepest direction and project."""
        return self.project(x_adv + size * self.steepest(gradient), x)

    def distance(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """||x_adv - x||_2."""
        return _norm(x_adv - x)


@config
class L1:
    """The absolute changes sum to at most eps (pixels in [0, 1])."""

    eps: float = number(default=12.0)

    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The nearest point in the ball around `x` and in [0, 1].

        The KKT conditions give |z - x|(t) = clip(|x_adv - x| - t, 0, room to the box), one
        multiplier t >= 0. Bisection finds which components are free, and then t is closed form.
        """
        d = x_adv - x
        room = _room(x, d)
        length = jnp.abs(d)

        def kept(t):
            return jnp.clip(length - t, 0, room)

        top = jnp.max(length)
        # Bisect the shrinkage from above: the largest `top - t` that is still inside the ball.
        t = top - _bisect(lambda u: _total(kept(top - u)) <= self.eps, jnp.zeros_like(top), top)
        free = (length > t) & (length - t < room)
        # A correction to t, not t itself: of thousands of lengths the sum would drown eps.
        t = t + (_total(kept(t)) - self.eps) / jnp.maximum(jnp.sum(free), 1)
        t = jnp.where(_total(kept(0.0)) <= self.eps, 0.0, t)
        return displaced(x, self._shrink(jnp.sign(d) * kept(t)))

    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Uniform in the ball (normalised exponentials with random signs), then projected."""
        key_size, key_rest, key_sign = jax.random.split(key, 3)
        size = jax.random.exponential(key_size, x.shape, x.dtype)
        total = _total(size) + jax.random.exponential(key_rest, (), x.dtype)
        sign = jax.random.rademacher(key_sign, x.shape, x.dtype)
        return self.project(x + self.eps * sign * size / total, x)

    def steepest(self, gradient: jax.Array) -> jax.Array:
        """The sign of the component with the largest |g|, zero elsewhere."""
        size = jnp.abs(gradient).reshape(-1)
        first = jnp.arange(size.size) == jnp.argmax(size)
        return jnp.where(first.reshape(gradient.shape), jnp.sign(gradient), 0)

    def step(self, x_adv: jax.Array, gradient: jax.Array, size: Scalar, x: jax.Array) -> jax.Array:
        """Spend `size` where it helps most, then take the excess back where it helps least.

        The first half is the steepest step of L1 length `size` inside the box (Croce & Hein, "Mind
        the box", 2021, Prop. 2.2): components in order of |g|, each up to its room, so the step is
        sparse. A Euclidean projection would then shrink every changed component alike, saturated
        ones included; the ball is met in the order of the linear gain instead, so the optimum of a
        linear function is a fixed point, reached after a travel of at most 2 eps.
        """
        room = jnp.where(gradient == 0, 0, _room(x_adv, gradient))
        z = x_adv + jnp.sign(gradient) * knapsack(jnp.abs(gradient), room, size)
        d = z - x
        excess = _total(jnp.abs(d)) - self.eps
        back = knapsack(-jnp.sign(d) * gradient, jnp.abs(d), jnp.maximum(excess, 0))
        return displaced(x, self._shrink(d - jnp.sign(d) * back))

    def _shrink(self, d: jax.Array) -> jax.Array:
        """`d`, scaled down by what rounding left outside the ball."""
        return d * jnp.minimum(self.eps / _positive(_total(jnp.abs(d))), 1)

    def distance(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The sum of |x_adv - x|."""
        return _total(jnp.abs(x_adv - x))


@config
class L0:
    """At most eps pixels (positions; all their channels together) may change, to anything.

    Pixels, as in Croce & Hein (2019) and Sparse-RS (2022), not components. With C = 1 the two
    agree. A fractional eps counts as the whole number below.
    """

    eps: float = number(default=10.0)

    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The nearest point: keep the pixels whose restoration would cost most, clip to [0, 1]."""
        z = jnp.clip(x_adv, 0, 1)
        gain = _per_pixel((x_adv - x) ** 2 - (x_adv - z) ** 2)
        return jnp.where(_top(gain, self.eps)[..., None], z, x)

    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Uniform colours at eps pixels chosen uniformly."""
        key_place, key_colour = jax.random.split(key)
        chosen = _top(jax.random.uniform(key_place, x.shape[:-1]), self.eps)
        colour = jax.random.uniform(key_colour, x.shape, x.dtype)
        return jnp.where(chosen[..., None], colour, x)

    def steepest(self, gradient: jax.Array) -> jax.Array:
        """sign(g) at the one pixel with the largest sum of |g|, zero elsewhere."""
        best = _top(_per_pixel(jnp.abs(gradient)), 1)
        return jnp.where(best[..., None], jnp.sign(gradient), 0)

    def step(self, x_adv: jax.Array, gradient: jax.Array, size: Scalar, x: jax.Array) -> jax.Array:
        """Send the ceil(`size`) most promising pixels to their best corner; restore the excess.

        A pixel at z is worth <g, z - x>. The pixels whose corner is worth most, and who are not
        there yet, go there; if more than eps have changed, those worth least go back. So the
        optimum of a linear function is a fixed point, reached after a travel of eps.
        """
        corner = jnp.where(gradient > 0, 1, jnp.where(gradient < 0, 0, x_adv))
        away = jnp.any(corner != x_adv, axis=-1)
        moved = away & _top(
            jnp.where(away, _per_pixel(gradient * (corner - x)), -jnp.inf), jnp.ceil(size)
        )
        z = jnp.where(moved[..., None], corner, x_adv)
        changed = jnp.any(z != x, axis=-1)
        kept = _top(jnp.where(changed, _per_pixel(gradient * (z - x)), -jnp.inf), self.eps)
        return jnp.where(kept[..., None], z, x)

    def distance(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The number of pixels with any channel changed."""
        return jnp.sum(jnp.any(x_adv != x, axis=-1)).astype(x.dtype)


Threats = Linf | L2 | L1 | L0

NORMS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
"""The threats by the names of the command line."""


def map_threats(function: Callable[[Threats], Threats], tree: T) -> T:
    """The same attack, method or other tree of configs, `function` applied to every threat."""

    def is_threat(node):
        return isinstance(node, Threats)

    def visit(node):
        return function(node) if is_threat(node) else node

    return jax.tree.map(visit, tree, is_leaf=is_threat)


def _total(values: jax.Array) -> jax.Array:
    return ordered_sum(values.reshape(-1))


def _norm(d: jax.Array) -> jax.Array:
    return jnp.sqrt(_total(d**2))


def _per_pixel(values: jax.Array) -> jax.Array:
    """The sum over channels: (H, W, C) -> (H, W)."""
    return ordered_sum(jnp.moveaxis(values, -1, 0))


def _positive(value: jax.Array) -> jax.Array:
    """A divisor: `value`, or 1 where it is zero (0 / 1 is the zero step we want there)."""
    return jnp.where(value > 0, value, 1)


def _room(x: jax.Array, direction: jax.Array) -> jax.Array:
    """How far each component of x may move in this direction before it meets the box."""
    return jnp.where(direction > 0, 1 - x, x)


def displaced(x: jax.Array, d: jax.Array) -> jax.Array:
    """x + d in the box, rounded towards x: half a bit of each pixel would add up to leave L1."""
    z = jnp.clip(x + d, 0, 1)
    return jnp.where(jnp.abs(z - x) > jnp.abs(d), jnp.nextafter(z, x), z)


def _bisect(holds, low: jax.Array, high: jax.Array) -> jax.Array:
    """The largest point of [low, high] where a predicate that fails from somewhere on holds."""

    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        inside = holds(middle)
        return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

    return jax.lax.fori_loop(0, 24, halve, (low, high))[0]


def knapsack(value: jax.Array, room: jax.Array, budget: Scalar) -> jax.Array:
    """Fractional knapsack: spend `budget` on components by value, each up to its room."""
    order = jnp.argsort(-value.reshape(-1))
    room_sorted = room.reshape(-1)[order]
    before = jnp.cumsum(room_sorted) - room_sorted
    spent = jnp.clip(budget - before, 0, room_sorted)
    return jnp.zeros_like(spent).at[order].set(spent).reshape(value.shape)


def _top(value: jax.Array, count: Scalar) -> jax.Array:
    """A mask of the floor(`count`) largest entries; ties go to the first."""
    order = jnp.argsort(-value.reshape(-1))
    chosen = jnp.arange(1, order.size + 1) <= count
    return jnp.zeros(order.size, bool).at[order].set(chosen).reshape(value.shape)
