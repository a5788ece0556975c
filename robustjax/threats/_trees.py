"""Threats inside attacks and methods: found, resized, and handed out per example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.typing import Box, Eps, Scalar, Threat

T = TypeVar("T")

MEMBERS = ("eps", "project", "sample", "steepest", "step", "distance")
"""What the protocol asks for."""
ROWS = ("eps", "bounds", "mask")
"""The fields that may have an entry per example."""


@runtime_checkable
class Bounded(Protocol):
    """A threat that says itself where the pixels lie."""

    def box(self, x: jax.Array) -> Box:
        """The least and the largest value of every component, whatever the norm allows."""
        ...


def box_of(threat: Threat | None, x: jax.Array) -> Box:
    """The box of a threat around x; [0, 1] where it does not say."""
    return threat.box(x) if isinstance(threat, Bounded) else (0.0, 1.0)


def radius(threat: Threat) -> Any:
    """The size of the ball: eps, or the largest entry of an eps per feature."""
    return threat.eps if jnp.ndim(threat.eps) == 0 else jnp.max(jnp.asarray(threat.eps))


def scaled(threat: Threat, factor: Scalar) -> Threat:
    """The same threat with an eps `factor` times as large."""
    return _replace(threat, threat.eps * factor)


def with_radius(threat: Threat, radius: Scalar) -> Threat:
    """The same threat with this radius, or these, (B,): an eps per feature keeps its proportions.

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
    """The same attack, method or other tree of configs, `function` applied to every threat.

    Raises:
      TypeError: something that looks like a threat is none: see `check_threat`.
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
    """Raise TypeError, which says what to do, unless this is a threat whose eps can be changed."""
    name = type(threat).__name__
    if isinstance(threat, type):
        raise TypeError(f"a threat is an object such as Linf(8 / 255), got the class {threat!r}")
    if not isinstance(threat, Threat):
        lacking = ", ".join(member for member in MEMBERS if not hasattr(threat, member))
        raise TypeError(
            f"{name} is no threat: it has no {lacking}; robustjax.typing.Threat says what they do"
        )
    if not dataclasses.is_dataclass(threat) or jax.tree_util.all_leaves([threat]):
        raise TypeError(
            f"the threat {name} is no config, so its eps cannot be changed: declare its class with "
            "@robustjax.config.config, and eps and what else it holds as fields"
        )


def check_norm(attack: Any, *norms: type) -> None:
    """Raise ValueError unless the attack's threat is a ball of one of these norms.

    For attacks that are made for certain norms: against any other ball they would find nothing,
    which reads as robustness.
    """
    threat = attack.threat
    if isinstance(threat, Threat) and not isinstance(threat, norms):
        known = [norm.__name__ for norm in norms]
        known = " and ".join([", ".join(known[:-1]), known[-1]] if known[1:] else known)
        raise ValueError(
            f"{type(attack).__name__} is made for {known}, not for {type(threat).__name__}; PGD "
            "and FMN take every threat"
        )


def check_threats(tree: Any, images: np.ndarray) -> None:
    """Raise ValueError unless every threat in the tree fits images of the shape (N, H, W, C).

    A number in `eps`, `bounds` or `mask` is for all examples and components. Of arrays the number
    of axes decides: one has an entry per example (N,); three are an image (H, W, C), or broadcast
    to it, for all examples; four are such an image per example.
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
            f"{name} of shape {shape} may be meant per example or per channel, as there are as "
            f"many of both: write (N, 1, 1, 1) or (1, 1, C)"
        )


def of_example(tree: T, row: jax.Array) -> T:
    """The tree as one example has it: entries per example are replaced by those of this row."""

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
