"""The four norms, with bounds and an optional mask, for one image (H, W, C).

The ball {z : norm(z - x) <= eps} is intersected with the box of pixel bounds; x lies in both.
`project` is the exact Euclidean projection onto the intersection: projecting onto the ball and then
clipping reaches only 0.991 to 0.999 of the optimum in L2. `step` is one step of projected ascent.
"""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from robustjax.config import config, number
from robustjax.names import Names
from robustjax.threats._ball import Ball, is_number, known_entries
from robustjax.threats.numerics import (
    bisect,
    displaced,
    knapsack,
    per_pixel,
    positive,
    room,
    top,
    total,
)
from robustjax.typing import Eps, Scalar, Threat

_TINY = 1e-30
_ULP = 2.0**-23


@config
class Linf(Ball):
    """Every entry of the image may change by at most eps, or by its own entry of eps.

    With an eps per feature, the radius is the largest eps and an entry's share is eps / radius:
    `steepest` moves every entry by its share, and `distance` is the largest change divided by the
    share. An entry whose eps is 0 is masked.

    Raises:
      ValueError: as for `Ball`; or a finite eps above 2 with bounds [0, 1], which must be in grey
        levels.

    >>> rj.threats.Linf(8 / 255, bounds=(-1, 1)).bounds
    (-1.0, 1.0)
    """

    eps: Eps = number(default=8 / 255)

    per_feature: ClassVar[bool] = True

    @override
    def __post_init__(self):
        super().__post_init__()
        # Pixels differ by 1 at most, and robustness curves go to twice an eps.
        if is_number(self.eps) and 2 < self.eps < math.inf and self.bounds == (0.0, 1.0):
            raise ValueError(
                f"pixels lie in [0, 1], and so does eps in linf; is {self.eps:g}/255 meant?"
            )

    @override
    def norm(self, d: jax.Array) -> jax.Array:
        size = jnp.abs(d)
        if jnp.ndim(self.eps) > 0:
            # Divided by a small share, rounding of the pixels would be a large distance.
            size = jnp.maximum(size - _ULP, 0) / positive(self._share())
        return jnp.max(size)

    @override
    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        low, high = self.box(x)
        return jnp.clip(x_adv, jnp.maximum(x - self.eps, low), jnp.minimum(x + self.eps, high))

    @override
    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Uniform in the ball, then clipped to the box."""
        return self.project(x + jax.random.uniform(key, x.shape, x.dtype, -self.eps, self.eps), x)

    @override
    def steepest(self, gradient: jax.Array) -> jax.Array:
        """sign(g), times its share of eps; zero where the gradient is zero."""
        sign = jnp.sign(self.freed(gradient))
        return sign if jnp.ndim(self.eps) == 0 else sign * self._share()

    @override
    def free(self) -> jax.Array | None:
        free = super().free()
        if jnp.ndim(self.eps) == 0:
            return free
        own = jnp.asarray(self.eps) > 0
        return own if free is None else own & free

    def _share(self) -> jax.Array:
        eps = jnp.asarray(self.eps)
        return eps / positive(jnp.max(eps))


@config
class L2(Ball):
    """The Euclidean norm of the change is at most eps.

    >>> threat, x = rj.threats.L2(0.5), jnp.zeros((1, 2, 1))
    >>> threat.project(jnp.array([[[3.0], [4.0]]]), x).ravel().round(3).tolist()
    [0.3..., 0.4...]
    """

    eps: Eps = number(default=0.5)

    @override
    def norm(self, d: jax.Array) -> jax.Array:
        return jnp.sqrt(total(d**2))

    @override
    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The nearest point in the ball around `x` and in the box.

        The KKT conditions give z(s) = clip(x + s (x_adv - x)) with one multiplier s <= 1, the
        largest whose norm is at most eps. Bisection finds which components are clipped, and then s
        is closed form: s^2 = (eps^2 - sum of clipped rooms^2) / sum of free differences^2.
        """
        d, box = self.freed(x_adv - x), self.box(x)
        space = room(box, x, d)
        length = jnp.abs(d)

        def norm(s):
            return self.norm(jnp.minimum(s * length, space))

        low = jnp.minimum(self.eps / jnp.maximum(self.norm(d), _TINY), 1)
        s = bisect(lambda s: norm(s) <= self.eps, low, jnp.ones_like(low))
        free = s * length < space
        rest = self.eps**2 - total(jnp.where(free, 0, space) ** 2)
        exact = jnp.sqrt(jnp.maximum(rest, 0) / positive(total(jnp.where(free, d, 0) ** 2)))
        s = jnp.where(norm(1.0) <= self.eps, 1.0, jnp.where(jnp.any(free), exact, s))
        return displaced(x, jnp.sign(d) * jnp.minimum(s * length, space), box)

    @override
    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Uniform in the ball, then projected."""
        key_direction, key_radius = jax.random.split(key)
        direction = self.steepest(jax.random.normal(key_direction, x.shape, x.dtype))
        part = jax.random.uniform(key_radius, (), x.dtype) ** (1 / self._dimensions(x))
        return self.project(x + self.eps * part * direction, x)

    @override
    def steepest(self, gradient: jax.Array) -> jax.Array:
        """g / ||g||_2; zero for a zero gradient."""
        gradient = self.freed(gradient)
        # Scaled first, so that the squares of tiny or huge gradients neither vanish nor overflow.
        scaled = gradient / positive(jnp.max(jnp.abs(gradient)))
        return scaled / positive(self.norm(scaled))


@config
class L1(Ball):
    """The absolute changes sum to at most eps.

    >>> threat, x = rj.threats.L1(0.5), jnp.zeros((1, 2, 1))
    >>> threat.project(jnp.array([[[0.75], [0.5]]]), x).ravel().tolist()
    [0.375, 0.125]
    """

    eps: Eps = number(default=12.0)

    @override
    def norm(self, d: jax.Array) -> jax.Array:
        return total(jnp.abs(d))

    @override
    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The nearest point in the ball around `x` and in the box.

        The KKT conditions give |z - x|(t) = clip(|x_adv - x| - t, 0, room to the box), one
        multiplier t >= 0. Bisection finds which components are free, and then t is closed form.
        """
        d, box = self.freed(x_adv - x), self.box(x)
        space = room(box, x, d)
        length = jnp.abs(d)

        def kept(t):
            return jnp.clip(length - t, 0, space)

        most = jnp.max(length)
        # Bisect the shrinkage from above: the largest `most - t` that is still inside the ball.
        t = most - bisect(lambda u: total(kept(most - u)) <= self.eps, jnp.zeros_like(most), most)
        free = (length > t) & (length - t < space)
        # A correction to t, not t itself: eps would be lost in a sum of thousands of lengths.
        t = t + (total(kept(t)) - self.eps) / jnp.maximum(jnp.sum(free), 1)
        t = jnp.where(total(kept(0.0)) <= self.eps, 0.0, t)
        return displaced(x, self._shrink(jnp.sign(d) * kept(t)), box)

    @override
    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Uniform in the ball (normalised exponentials with random signs), then projected."""
        key_size, key_rest, key_sign = jax.random.split(key, 3)
        size = self.freed(jax.random.exponential(key_size, x.shape, x.dtype))
        whole = total(size) + jax.random.exponential(key_rest, (), x.dtype)
        sign = jax.random.rademacher(key_sign, x.shape, x.dtype)
        return self.project(x + self.eps * sign * size / whole, x)

    @override
    def steepest(self, gradient: jax.Array) -> jax.Array:
        """The sign of the component with the largest |g|, zero elsewhere."""
        gradient = self.freed(gradient)
        size = jnp.abs(gradient).reshape(-1)
        first = jnp.arange(size.size) == jnp.argmax(size)
        return jnp.where(first.reshape(gradient.shape), jnp.sign(gradient), 0)

    @override
    def step(self, x_adv: jax.Array, gradient: jax.Array, size: Scalar, x: jax.Array) -> jax.Array:
        """Spend `size` where it helps most, then take the excess back where it helps least.

        The first half is the steepest step of L1 length `size` inside the box (Croce & Hein, "Mind
        the box", 2021, Prop. 2.2): entries in order of |g|, each up to its room, so the step is
        sparse. A Euclidean projection would then shrink all changed entries equally, including
        saturated ones; taking back in order of linear gain makes the optimum of a linear function a
        fixed point, reached after a distance of at most 2 eps.
        """
        box = self.box(x)
        space = jnp.where(gradient == 0, 0, room(box, x_adv, gradient))
        z = x_adv + jnp.sign(gradient) * knapsack(jnp.abs(gradient), space, size)
        d = z - x
        excess = total(jnp.abs(d)) - self.eps
        back = knapsack(-jnp.sign(d) * gradient, jnp.abs(d), jnp.maximum(excess, 0))
        return displaced(x, self._shrink(d - jnp.sign(d) * back), box)

    def _shrink(self, d: jax.Array) -> jax.Array:
        """`d`, scaled down if rounding left it outside the ball."""
        return d * jnp.minimum(self.eps / positive(total(jnp.abs(d))), 1)


@config
class L0(Ball):
    """At most eps pixels (positions, with all their channels) may change, to any value.

    Pixels as in Croce & Hein (2019) and Sparse-RS (2022), not entries. With C = 1 the two agree. A
    fractional eps is rounded down; an eps between 0 and 1 allows nothing and is refused.

    Raises:
      ValueError: as for `Ball`; or 0 < eps < 1; or no bounds, as pixels could then be infinite.

    >>> threat, x = rj.threats.L0(1), jnp.zeros((1, 2, 1))
    >>> threat.project(jnp.array([[[0.3], [0.9]]]), x).ravel().round(3).tolist()
    [0.0, 0.9...]
    """

    eps: Eps = number(default=10.0)

    @override
    def __post_init__(self):
        super().__post_init__()
        eps = self.eps if is_number(self.eps) else known_entries(self.eps)
        if eps is not None and np.any((eps > 0) & (eps < 1)):
            raise ValueError(
                f"L0 counts pixels, so eps must be 0 or at least 1, got {eps!r}, which allows no "
                "change at all"
            )
        if self.bounds is None:
            raise ValueError("L0 needs bounds: a changed pixel goes to one of them")

    @override
    def norm(self, d: jax.Array) -> jax.Array:
        return jnp.sum(jnp.any(d != 0, axis=-1)).astype(d.dtype)

    @override
    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The nearest point: keep the pixels whose restoration would cost most, clip to the box."""
        z = jnp.clip(x_adv, *self.box(x))
        gain = per_pixel((x_adv - x) ** 2 - (x_adv - z) ** 2)
        return jnp.where(top(gain, self.eps)[..., None], z, x)

    @override
    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Uniform colours at eps pixels chosen uniformly."""
        key_place, key_colour = jax.random.split(key)
        low, high = self.box(x)
        lot = jax.random.uniform(key_place, x.shape[:-1])
        if self.mask is not None:
            lot = jnp.where(jnp.any(jnp.broadcast_to(low < high, x.shape), axis=-1), lot, -1)
        colour = low + (high - low) * jax.random.uniform(key_colour, x.shape, x.dtype)
        return jnp.where(top(lot, self.eps)[..., None], colour, x)

    @override
    def steepest(self, gradient: jax.Array) -> jax.Array:
        """sign(g) at the one pixel with the largest sum of |g|, zero elsewhere."""
        gradient = self.freed(gradient)
        best = top(per_pixel(jnp.abs(gradient)), 1)
        return jnp.where(best[..., None], jnp.sign(gradient), 0)

    @override
    def step(self, x_adv: jax.Array, gradient: jax.Array, size: Scalar, x: jax.Array) -> jax.Array:
        """Move the ceil(`size`) most promising pixels to their best corner; restore the excess.

        A pixel at z is worth <g, z - x>. Of the pixels that are not at their best corner yet, those
        with the most valuable corners move there; if more than eps pixels have changed, the least
        valuable are restored. So the optimum of a linear function is a fixed point, reached after
        eps pixels.
        """
        low, high = self.box(x)
        corner = jnp.where(gradient > 0, high, jnp.where(gradient < 0, low, x_adv))
        away = jnp.any(corner != x_adv, axis=-1)
        moved = away & top(
            jnp.where(away, per_pixel(gradient * (corner - x)), -jnp.inf), jnp.ceil(size)
        )
        z = jnp.where(moved[..., None], corner, x_adv)
        changed = jnp.any(z != x, axis=-1)
        kept = top(jnp.where(changed, per_pixel(gradient * (z - x)), -jnp.inf), self.eps)
        return jnp.where(kept[..., None], z, x)


THREATS: Names[Threat] = Names("threat", {"linf": Linf(), "l2": L2(), "l1": L1(), "l0": L0()})
"""The threats by their names in `--threat`; `THREATS.register("mine", Mine())` adds your own."""
