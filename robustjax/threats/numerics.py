"""Sums, bisection and selection: the parts of projections and steps."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from robustjax.deterministic import ordered_sum
from robustjax.typing import Box, Eps, Scalar


def total(values: jax.Array) -> jax.Array:
    """The sum of all entries, in a fixed order."""
    return ordered_sum(values.reshape(-1))


def per_pixel(values: jax.Array) -> jax.Array:
    """The sum over channels: (H, W, C) -> (H, W)."""
    return ordered_sum(jnp.moveaxis(values, -1, 0))


def positive(value: jax.Array) -> jax.Array:
    """A divisor: `value`, or 1 where it is zero, so that 0 / 0 becomes a zero step."""
    return jnp.where(value > 0, value, 1)


def room(box: Box, x: jax.Array, direction: jax.Array) -> jax.Array:
    """How far each entry of x can move in this direction before it reaches the box."""
    low, high = box
    return jnp.where(direction > 0, high - x, x - low)


def displaced(x: jax.Array, d: jax.Array, box: Box) -> jax.Array:
    """x + d in the box, rounded towards x: half a bit of each pixel would add up to leave L1."""
    z = jnp.clip(x + d, *box)
    return jnp.where(jnp.abs(z - x) > jnp.abs(d), jnp.nextafter(z, x), z)


def bisect(holds: Callable[[jax.Array], jax.Array], low: jax.Array, high: jax.Array) -> jax.Array:
    """The largest point of [low, high] where `holds` is true, if it is true up to some point."""

    def halve(_, interval):
        low, high = interval
        middle = (low + high) / 2
        inside = holds(middle)
        return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

    return jax.lax.fori_loop(0, 24, halve, (low, high))[0]


def knapsack(value: jax.Array, room: jax.Array, budget: Scalar) -> jax.Array:
    """Fractional knapsack: spend `budget` on entries by value, each up to its room."""
    room = jnp.where(jnp.isinf(room), budget, room)
    order = jnp.argsort(-value.reshape(-1))
    room_sorted = room.reshape(-1)[order]
    before = jnp.cumsum(room_sorted) - room_sorted
    spent = jnp.clip(budget - before, 0, room_sorted)
    return jnp.zeros_like(spent).at[order].set(spent).reshape(value.shape)


def top(value: jax.Array, count: Eps) -> jax.Array:
    """A mask of the floor(`count`) largest entries; ties go to the first."""
    order = jnp.argsort(-value.reshape(-1))
    chosen = jnp.arange(1, order.size + 1) <= count
    return jnp.zeros(order.size, bool).at[order].set(chosen).reshape(value.shape)
