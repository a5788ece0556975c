"""What a threat in a norm is made of: a radius, pixel bounds, a mask, and their checks."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from robustjax.checks import shown
from robustjax.config import config, number
from robustjax.typing import Box, Eps, Scalar

Bounds = tuple[Eps, Eps] | None
"""(low, high), each a number or an array like `eps`; None for unbounded pixels."""


class _Constants(tuple):
    """Numbers as bounds: constants of the program, which is then as short as for [0, 1]."""


jax.tree_util.register_pytree_node(
    _Constants, lambda bounds: ((), tuple(bounds)), lambda bounds, _: _Constants(bounds)
)


@config
class Ball(abc.ABC):
    """A norm, a radius, bounds and a mask: the base of the four norms and of your own.

    Args:
      eps: the radius, one number or one per example (N,); in `Linf` also one per feature, see
        `typing.Threat`. In the units of the images.
      bounds: (low, high) of the pixels, numbers or arrays; None: unbounded.
      mask: the entries that may change: an array of bool or 0 and 1 that broadcasts to (H, W, C),
        or one per example with a leading axis; None: all.

    Raises:
      ValueError: eps is negative or NaN or has an unknown shape, or bounds are not (low, high).

    `norm`, `project`, `sample` and `steepest` define a subclass; the rest follows:

    >>> masked = rj.threats.L2(1.0, mask=np.array([[[1.0]], [[0.0]]]))
    >>> x, z = jnp.zeros((2, 1, 1)), jnp.ones((2, 1, 1))
    >>> float(masked.distance(z, x)), masked.step(x, z, 0.5, x).ravel().tolist()
    (inf, [0.5, 0.0])
    """

    eps: Eps = number(default=1.0)
    bounds: Bounds = (0.0, 1.0)
    mask: np.ndarray | jax.Array | None = None

    per_feature: ClassVar[bool] = False

    def __post_init__(self):
        _check_eps(self.eps, self.per_feature)
        _check_bounds(self.bounds)
        _check_mask(self.mask)
        if isinstance(self.bounds, tuple) and all(map(is_number, self.bounds)):
            object.__setattr__(self, "bounds", _Constants(map(float, self.bounds)))

    @abc.abstractmethod
    def norm(self, d: jax.Array) -> jax.Array:
        """The size () of a change (H, W, C)."""

    @abc.abstractmethod
    def project(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The nearest point in the ball around `x` and in the box."""

    @abc.abstractmethod
    def sample(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """A random point of the ball around `x` and in the box."""

    @abc.abstractmethod
    def steepest(self, gradient: jax.Array) -> jax.Array:
        """The direction of unit norm in which a linear function with this gradient grows most."""

    def step(self, x_adv: jax.Array, gradient: jax.Array, size: Scalar, x: jax.Array) -> jax.Array:
        """Move by `size` along the steepest direction and project."""
        return self.project(x_adv + size * self.steepest(gradient), x)

    def distance(self, x_adv: jax.Array, x: jax.Array) -> jax.Array:
        """The norm of `x_adv - x`; inf if a masked entry has changed."""
        d, free = x_adv - x, self.free()
        if free is None:
            return self.norm(d)
        return jnp.where(jnp.any(~free & (d != 0)), jnp.inf, self.norm(jnp.where(free, d, 0)))

    def box(self, x: jax.Array) -> Box:
        """(low, high) of every entry, regardless of the norm; both are x where masked."""
        for leaf in jax.tree.leaves((self.eps, self.bounds, self.mask)):
            if jnp.ndim(leaf) in (1, 4):
                raise ValueError(
                    f"{type(self).__name__} has an array of shape {jnp.shape(leaf)}, with an entry "
                    "per example: perturb, evaluate and curve split it; elsewhere give each image "
                    "its own threat"
                )
        low, high = (-jnp.inf, jnp.inf) if self.bounds is None else self.bounds
        free = self.free()
        return (low, high) if free is None else (jnp.where(free, low, x), jnp.where(free, high, x))

    def free(self) -> jax.Array | None:
        """Where entries may change, broadcastable to (H, W, C); None for everywhere."""
        return None if self.mask is None else jnp.asarray(self.mask) != 0

    def freed(self, d: jax.Array) -> jax.Array:
        """A direction (H, W, C) with zeros where masked."""
        free = self.free()
        return d if free is None else jnp.where(free, d, 0)

    def _dimensions(self, x: jax.Array) -> Scalar:
        free = self.free()
        return x.size if free is None else jnp.maximum(jnp.sum(jnp.broadcast_to(free, x.shape)), 1)


def is_number(value: object) -> bool:
    """Whether a value is a number, no array."""
    return isinstance(value, int | float | np.number)


def known_entries(value: object) -> np.ndarray | None:
    """The entries of an array; None for tracers and other placeholders of JAX."""
    if isinstance(value, Tracer) or not isinstance(value, np.ndarray | jax.Array):
        return None
    return np.asarray(value)


def _check_eps(eps: object, per_feature: bool) -> None:
    if isinstance(eps, list | tuple):
        raise ValueError(f"eps must be a number or an array, got {eps!r}")
    entries = known_entries(eps)
    if entries is None:
        return
    shape = entries.shape
    features = shape[-3:] if len(shape) > 2 else shape[1:]
    if not per_feature and any(axis != 1 for axis in features):
        raise ValueError(
            "only Linf has an eps per feature; here eps is one number or one per example (N,), and "
            f"a mask limits what may change; got the shape {shape}"
        )
    if not (entries >= 0).all():
        raise ValueError(f"eps must lie in [0, inf], got {entries[~(entries >= 0)][0]:g}")
    if len(shape) > 2 and np.isinf(entries).any():
        raise ValueError("an eps per feature must be finite; use eps=inf with a mask instead")


def _check_bounds(bounds: object) -> None:
    wrong, pair = str | list | Mapping, bounds if isinstance(bounds, tuple) else (bounds, bounds)
    if len(pair) != 2 or any(isinstance(b, wrong) for b in pair):
        raise ValueError(f"bounds must be a pair (low, high), got {bounds!r}")
    if not isinstance(bounds, tuple):  # None, or a placeholder of JAX
        return
    low, high = (b if is_number(b) else known_entries(b) for b in bounds)
    if low is not None and high is not None and not np.all(low <= high):
        raise ValueError(f"bounds must be (low, high) with low <= high, got {bounds!r}")


def _check_mask(mask: object) -> None:
    """Raise ValueError unless it is None, or an array of bool or 0 and 1."""
    if mask is None or isinstance(mask, Tracer):
        return
    if np.ndim(mask) == 0:  # pyright: ignore[reportArgumentType]
        raise ValueError(
            f"mask must be an array of the shape of an image (H, W, C) or other input, or with one "
            f"per example in front, got {shown(mask)}"
        )
    if (entries := known_entries(mask)) is not None and not np.isin(entries, (0, 1)).all():
        raise ValueError(f"mask must hold bools, or 0 and 1, got {shown(mask)} with other entries")
