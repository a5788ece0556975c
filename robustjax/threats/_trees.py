"""Threats inside attacks and methods: find, resize and check them, and pick one example's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.checks import checked
from robustjax.typing import Box, Eps, Scalar, Threat

T = TypeVar("T")

MEMBERS = ("eps", "project", "sample", "steepest", "step", "distance")
"""The members of the protocol."""
ROWS = ("eps", "bounds", "mask")
"""The fields that can have an entry per example."""


@runtime_checkable
class Bounded(Protocol):
    """A threat with its own pixel bounds."""

    def box(self, x: jax.Array) -> Box:
        """The smallest and largest value of every entry, regardless of the norm."""
        ...


@checked(x="H W C")
def box_of(threat: Threat | None, x: jax.Array) -> Box:
    """The pixel bounds (low, high) of a threat around x; (0, 1) if it defines none.

    >>> box_of(rj.threats.Linf(0.1, bounds=(-1, 1)), jnp.zeros((2, 2, 1)))
    (-1.0, 1.0)
    """
    return threat.box(x) if isinstance(threat, Bounded) else (0.0, 1.0)


@checked
def radius(threat: Threat) -> Any:
    """The radius of the ball: eps, or the largest entry of an eps per feature.

    >>> float(radius(rj.threats.Linf(np.array([[[0.25, 0.5]]]))))
    0.5
    """
    return threat.eps if jnp.ndim(threat.eps) == 0 else jnp.max(jnp.asarray(threat.eps))


def scaled(threat: Threat, factor: Scalar) -> Threat:
    """A copy of a threat with its eps multiplied by `factor`."""
    return _replace(threat, threat.eps * factor)


@checked
def with_radius(threat: Threat, radius: Scalar) -> Threat:
    """A copy of a threat with this radius, or these (B,); an eps per feature keeps its proportions.

    >>> rj.threats.with_radius(rj.threats.Linf(0.1), 0.3)
    Linf(eps=0.3, bounds=(0.0, 1.0), mask=None)
    """
    if jnp.ndim(threat.eps) < 3:
        return _replace(threat, radius)
    eps = jnp.asarray(threat.eps)
    most = jnp.max(eps, axis=(-3, -2, -1), keepdims=True)
    if jnp.ndim(radius) and jnp.ndim(eps) == 3:
        eps, most = eps[None], most[None]
    radius = jnp.reshape(radius, (*jnp.shape(radius), 1, 1, 1))
    return _replace(threat, eps * (radius / jnp.where(most > 0, most, 1)))


def _replace(threat: Threat, eps: Eps) -> Threat:
    check_threat(threat)
    return dataclasses.replace(threat, eps=eps)  # pyright: ignore[reportArgumentType]


def map_threats(function: Callable[[Any], Any], tree: T) -> T:
    """A copy of an attack, method or other tree of configs with `function` applied to every threat.

    Raises:
      TypeError: an object with a method `project` is not a threat: see `check_threat`.
    """

    def is_threat(node):
        if not hasattr(node, "project"):
            return False
        check_threat(node)
        return True

    def visit(node):
        return function(node) if is_threat(node) else node

    return jax.tree.map(visit, tree, is_leaf=is_threat)


def threats_of(tree: Any) -> list[Threat]:
    """Every threat in a tree of configs."""
    found: list[Threat] = []
    map_threats(lambda threat: found.append(threat) or threat, tree)
    return found


def check_threat(threat: Any) -> None:
    """Raise TypeError unless this is a threat whose eps can be changed."""
    name = type(threat).__name__
    if isinstance(threat, type):
        raise TypeError(f"a threat is an object such as Linf(8 / 255), got the class {threat!r}")
    if not isinstance(threat, Threat):
        lacking = ", ".join(member for member in MEMBERS if not hasattr(threat, member))
        raise TypeError(f"{name} is not a threat: it lacks {lacking}; see robustjax.typing.Threat")
    if not dataclasses.is_dataclass(threat) or jax.tree_util.all_leaves([threat]):
        raise TypeError(
            f"the threat {name} is not a config, so its eps cannot be changed: declare its class "
            "with @robustjax.config.config, and eps and its other values as fields"
        )


def check_norm(attack: Any, *norms: type) -> None:
    """Raise ValueError unless the attack's threat is a ball of one of these norms.

    Under any other norm an attack designed for certain ones would find nothing, which would look
    like robustness.
    """
    threat = attack.threat
    if isinstance(threat, Threat) and not isinstance(threat, norms):
        known = [norm.__name__ for norm in norms]
        known = " and ".join([", ".join(known[:-1]), known[-1]] if known[1:] else known)
        raise ValueError(
            f"{type(attack).__name__} supports {known}, not {type(threat).__name__}; PGD and FMN "
            "support every threat"
        )


def check_threats(tree: Any, images: np.ndarray) -> None:
    """Raise ValueError unless every threat in the tree fits images of the shape (N, H, W, C).

    A number in `eps`, `bounds` or `mask` applies to all examples and entries. The number of axes of
    an array decides its meaning: one axis (N,) is per example; three (H, W, C), or broadcast to it,
    are an image for all examples; four are an image per example.
    """
    n, *image = images.shape

    def check(threat):
        for name in _rows(threat):
            for leaf in jax.tree.leaves(getattr(threat, name)):
                check_shape(name, np.shape(leaf), n, tuple(image))
        return threat

    map_threats(check, tree)


def check_shape(name: str, shape: tuple[int, ...], n: int, image: tuple[int, ...]) -> None:
    """`check_threats` for one array."""
    feature = shape[-3:] if len(shape) > 2 else ()
    known = len(shape) in (0, 1, 3, 4)
    if not known or any(a not in (1, b) for a, b in zip(feature, image, strict=bool(feature))):
        raise ValueError(
            f"{name} of shape {shape} does not fit images of shape {image}: write one per feature "
            "as (H, W, C), (H, W, 1) or (1, 1, C), one per example as (N,), both as (N, H, W, C)"
        )
    if len(shape) in (1, 4) and shape[:1] != (n,):
        raise ValueError(
            f"{name} of shape {shape} has an entry per example, but there are {n} images; one per "
            "channel is written (1, 1, C)"
        )
    if len(shape) == 1 and n == image[-1] > 1:
        raise ValueError(
            f"{name} of shape {shape} is ambiguous, as there are as many examples as channels: "
            "write (N, 1, 1, 1) or (1, 1, C)"
        )


def of_example(tree: T, row: jax.Array) -> T:
    """The tree of one example: arrays per example are replaced by the entry of this row."""

    def pick(leaf):
        if jnp.ndim(leaf) not in (1, 4):
            return leaf
        entry = jnp.asarray(leaf)[row]
        return entry.reshape(()) if entry.size == 1 else entry

    def own(threat):
        fields = {name: getattr(threat, name) for name in _rows(threat)}
        if all(jnp.ndim(leaf) in (0, 3) for leaf in jax.tree.leaves(fields)):
            return threat
        return dataclasses.replace(threat, **jax.tree.map(pick, fields))

    return map_threats(own, tree)


def _rows(threat: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(threat) if field.name in ROWS]
