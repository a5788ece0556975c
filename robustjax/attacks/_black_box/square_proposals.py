"""The proposals of Square Attack: square windows of an image, and what changes inside them.

The side of a window is data, so windows are masks (H, W, 1) of the whole image. On a line of
pixels, H x 1 or 1 x W, windows are intervals.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.deterministic import ordered_sum
from robustjax.threats import L1, L2, Linf, box_of
from robustjax.threats.numerics import displaced
from robustjax.typing import Threat

TINY = 1e-12


def stripes(key: jax.Array, x: jax.Array, threat: Linf) -> jax.Array:
    """Every column, per channel, at x + eps or x - eps."""
    sign = jax.random.rademacher(key, (1, *x.shape[1:]), x.dtype)
    return threat.project(x + threat.eps * sign, x)


def recolour(
    key: jax.Array, x_best: jax.Array, x: jax.Array, threat: Linf, part: jax.Array
) -> jax.Array:
    """Move a window of x_best, per channel, by 2 eps up or down: from anywhere to x +- eps."""
    key_place, key_sign = jax.random.split(key)
    side = jnp.minimum(jnp.maximum(_side(x, part), 1), _longest(x))
    here = _inside(*_place(key_place, x, side), side)
    sign = jax.random.rademacher(key_sign, (1, 1, x.shape[-1]), x.dtype)
    return threat.project(x_best + 2 * threat.eps * here * sign, x)


def grid(key: jax.Array, x: jax.Array, threat: Threat) -> jax.Array:
    """Tiles of a fifth of the shorter side, each a bump, with a random sign per channel."""
    height, width, channels = x.shape
    side = max(min(height, width) // 5, 1)
    rows, columns = height // side, width // side
    key_turn, key_sign = jax.random.split(key)
    turned = jax.random.bernoulli(key_turn, shape=(rows, columns, 1, 1, 1))
    sign = jax.random.rademacher(key_sign, (rows, columns, 1, 1, channels), x.dtype)
    u, v = np.mgrid[:side, :side, :1][:2]
    one = bump(u, v, side, threat, side)
    tiles = jnp.where(turned, one.swapaxes(0, 1)[None, None], one[None, None]) * sign
    tiles = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, channels)
    rest = np.array([height - rows * side, width - columns * side, 0])
    return _onto(threat, jnp.pad(tiles, np.stack([rest // 2, rest - rest // 2], 1)), x)


def move(
    key: jax.Array, x_best: jax.Array, x: jax.Array, threat: Threat, part: jax.Array
) -> jax.Array:
    """Add a bump to one window of x_best and make another one clean.

    Per channel, the first gets the norm of both, and its share of what is left of eps.
    """
    keys = jax.random.split(key, 4)
    side = jnp.maximum(_side(x, part), 3)
    side = jnp.minimum(side + 1 - side % 2, _longest(x))
    corner, channels, q = _place(keys[0], x, side), x.shape[-1], _power(threat)
    here, there = _inside(*corner, side), _inside(*_place(keys[1], x, side), side)

    d = x_best - x
    mass = jnp.abs(d) ** q
    of_here, of_both, of_all = _per_channel(mass * here, mass * (here | there), mass)
    left = jnp.maximum(threat.eps**q - jnp.sum(of_all), 0) / channels
    u, v = corner
    turned = _along_columns(x, jax.random.bernoulli(keys[2]))
    shape = bump(jnp.where(turned, v, u), jnp.where(turned, u, v), side, threat, max(x.shape))
    new = shape * jax.random.rademacher(keys[3], (1, 1, channels), x.dtype)
    new += d * here / (_root(of_here, q) + TINY)
    (of_new,) = _per_channel(jnp.abs(new) ** q)
    new *= (left + of_both) ** (1 / q) / (_root(of_new, q) + TINY)
    if isinstance(threat, L1):
        new *= channels  # as the authors do; the projection takes back what is too much
    return _onto(threat, jnp.where(here, new, jnp.where(there, 0, d)), x)


def bump(u, v, side, threat: Threat, longest: int) -> jax.Array:
    """Two hills of opposite sign on the upper and the lower half of a window; norm 1.

    A hill is the sum over t = 1, 2, ... of 1 / t^2 (L2) or 1 / t^4 (L1) times the square of side
    2 t - 1 around its centre.

    Args:
      u, v: the row and the column of each pixel (H, W, 1), from the window's corner; zero outside.
      side: of the window, at most `longest`, which is static.
      threat: the norm.
      longest: an upper bound of `side`.
    """
    q, top = _power(threat), side // 2
    sums = np.cumsum([0.0, *(1 / np.arange(1, longest + 2.0) ** (2 if q == 2 else 4))])
    sums = jnp.asarray(sums, jnp.float32)
    lower = u >= top
    row, rows = jnp.where(lower, u - top, u), jnp.where(lower, side - top, top)
    ring = jnp.maximum(jnp.abs(row - rows // 2), jnp.abs(v - side // 2))
    hills = (sums[top + 1] - sums[jnp.minimum(ring, top + 1)]) * _inside(u, v, side)
    (of_upper, of_lower) = _per_channel(hills**q * ~lower, hills**q * lower)
    of_upper, of_lower = _root(of_upper, q) + TINY, _root(of_lower, q) + TINY
    hills = jnp.where(lower, -hills / of_lower, hills / of_upper)
    (total,) = _per_channel(jnp.abs(hills) ** q)
    return hills / _root(total, q)


def _side(x: jax.Array, part: jax.Array) -> jax.Array:
    """The side of a square that covers this part of the image."""
    area = part * x.shape[0] * x.shape[1]
    return jnp.round(area if _is_line(x) else jnp.sqrt(area)).astype(jnp.int32)


def _is_line(x: jax.Array) -> bool:
    return 1 in x.shape[:2]


def _longest(x: jax.Array) -> int:
    """The largest side of a window."""
    return max(x.shape[:2]) if _is_line(x) else min(x.shape[:2])


def _along_columns(x: jax.Array, turned: jax.Array) -> jax.Array:
    """Whether the hills of a bump lie side by side; on a line as the line does."""
    return jnp.asarray(x.shape[0] == 1) if _is_line(x) else turned


def _place(key: jax.Array, x: jax.Array, side: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The (row, column) of each pixel, each (H, W, 1), from a random window's corner."""
    highest = jnp.asarray(x.shape[:2]) - side
    corner = jax.random.randint(key, (2,), 0, jnp.maximum(highest, 0) + 1)
    rows, columns = np.mgrid[: x.shape[0], : x.shape[1], :1][:2]
    rows, columns = rows - corner[0], columns - corner[1]
    if x.shape[0] == 1:  # the window's middle row is on the line
        rows = rows + side // 2
    if x.shape[1] == 1:
        columns = columns + side // 2
    return rows, columns


def _inside(u: jax.Array, v: jax.Array, side: jax.Array) -> jax.Array:
    return (u >= 0) & (u < side) & (v >= 0) & (v < side)


def _per_channel(*images: jax.Array) -> list[jax.Array]:
    """The sums over the pixels of images (H, W, C), each (1, 1, C); in a fixed order."""
    columns = jnp.concatenate(images, -1)
    sums = ordered_sum(columns.reshape(-1, columns.shape[-1]))[None, None]
    return jnp.split(sums, len(images), -1)


def _root(value: jax.Array, q: int) -> jax.Array:
    """The q-th root, q 1 or 2: a power rounds by how many are computed at once."""
    return jnp.sqrt(value) if q == 2 else value


def _power(threat: Threat) -> int:
    return 1 if isinstance(threat, L1) else 2


def _onto(threat: Threat, d: jax.Array, x: jax.Array) -> jax.Array:
    """x + d, of norm eps (L2) or at most eps (L1), in the box."""
    if isinstance(threat, L2):
        return displaced(x, threat.steepest(d) * threat.eps, box_of(threat, x))
    return threat.project(x + d, x)
