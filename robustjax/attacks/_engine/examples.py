"""The examples of a run: images, labels and targets from outside, checked."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from robustjax.attacks._core.iterative import TOLERANCE
from robustjax.attacks._core.success import Success, fooled
from robustjax.threats import box_of
from robustjax.threats._trees import check_threats, of_example, threats_of
from robustjax.typing import Threat


@dataclasses.dataclass(frozen=True)
class Examples:
    """N examples as NumPy arrays.

    Attributes:
      image: (N, H, W, C) float32.
      label: (N,) the true classes, or (N, ...) for a success of one's own.
      index: (N,) their names, from which randomness is drawn.
      position: (N,) where each stood in what the caller gave: its entry of an eps per example.
      target: pytree of (N, ...) for attacks with a given target, or None.
    """

    image: np.ndarray
    label: np.ndarray
    index: np.ndarray
    position: np.ndarray
    target: Any = None

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: np.ndarray) -> Examples:
        """A selection, by a mask or by positions."""
        return Examples(**jax.tree.map(lambda a: a[rows], self.rows()))

    def rows(self) -> dict[str, Any]:
        """The arrays by name; None for no target."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def check_examples(
    images: Any,
    labels: Any,
    indices: Any = None,
    targets: Any = None,
    attacks: Any = None,
    success: Success | None = None,
) -> Examples:
    """Images and labels from outside.

    Args:
      images: (N, H, W, C), uint8, which is divided by 255, or floats in the boxes of the attacks'
        threats, [0, 1] by default. Pixels outside by rounding alone are clipped.
      labels: (N,) integers, the true labels; for a success of one's own any numbers (N, ...).
      indices: (N,) integers that name the examples, and seed them; None: 0 to N - 1.
      targets: (N,) integers, the classes to reach; or a pytree of arrays (N, ...) for losses that
        compare with something else; None: none.
      attacks: one attack or a list of them; None: none.
      success: what reads the labels; None: `fooled`, which takes classes.

    Raises:
      ValueError: channels before height and width, a wrong shape or dtype, pixels outside the box
        or not finite, a negative label, a target that is its image's label, or a threat that does
        not fit the images.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or not images.size:
        raise ValueError(f"images must have the shape (N, H, W, C), N >= 1; got {images.shape}")
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(255)
    if images.dtype.kind not in "fV":  # V: bfloat16
        raise ValueError(
            f"images must be floats in the bounds of the threat, or uint8; got {images.dtype}"
        )
    images = images.astype(np.float32)
    if not np.isfinite(images).all():
        bad = int((~np.isfinite(images)).any((1, 2, 3)).sum())
        raise ValueError(f"{bad} of {len(images)} images hold NaN or infinite pixels")
    check_threats(attacks, images)
    for attack in attacks if isinstance(attacks, list) else [attacks]:
        for threat in threats_of(attack) or [None]:
            images = _in_box(images, threat)
    indices = np.arange(len(images)) if indices is None else np.asarray(indices)
    _check_integers("indices", indices, len(images))
    if success in (None, fooled):
        _check_integers("labels", labels, len(images))
    labels = _labels(labels, len(images))
    targets = jax.tree.map(np.asarray, targets)
    for leaf in jax.tree.leaves(targets):
        if leaf.shape[:1] != labels.shape[:1]:
            raise ValueError(f"targets must have a leading axis {len(images)}, got {leaf.shape}")
    if are_classes(targets):
        if are_classes(labels) and (same := np.flatnonzero(targets == labels)).size:
            raise ValueError(
                f"a target is a class to reach, but that of image {same[0]} is its own label, "
                f"{labels[same[0]]}: give it another, or leave such images out"
            )
        targets = targets.astype(np.int32)
    position = np.arange(len(images), dtype=np.int32)
    return Examples(images, labels, indices.astype(np.int32), position, targets)


def check_on_host(given: Any) -> None:
    """Raise ValueError while JAX traces."""
    if any(isinstance(leaf, Tracer) for leaf in (*jax.tree.leaves(given), jnp.zeros(()) + 0)):
        raise ValueError(
            "perturb, evaluate and curve run on the host: call them outside jax.jit, jax.vmap and "
            "jax.grad; inside, map the attack itself over the images, "
            "jax.vmap(lambda key, x, y: attack(logits_of_one, key, x, y)): see "
            "docs/how_to/own_loop.md"
        )


def _check_integers(name: str, values: np.ndarray, count: int) -> None:
    """Raise ValueError unless there is an integer >= 0 for each image."""
    if values.shape != (count,) or values.dtype.kind not in "iu":
        other = "; labels of another kind need a `success` of your own"
        raise ValueError(
            f"{name} must be {count} integers, one per image; got {values.dtype} of shape "
            f"{values.shape}{other if name == 'labels' else ''}"
        )
    if values.min() < 0 or values.max() >= 2**31:
        bad = values.min() if values.min() < 0 else values.max()
        raise ValueError(f"{name} must lie in [0, 2^31), got {bad}")


def _labels(labels: np.ndarray, count: int) -> np.ndarray:
    """Labels of any kind in 32 bits at most."""
    kind = "V" if labels.dtype == jnp.bfloat16 else labels.dtype.kind
    if labels.shape[:1] != (count,) or kind not in "biufV":
        raise ValueError(
            f"labels must be {count} numbers or arrays of numbers, one per image; got "
            f"{labels.dtype} of shape {labels.shape}"
        )
    if kind in "iu" and labels.size and not -(2**31) <= labels.min() <= labels.max() < 2**31:
        raise ValueError(f"labels must lie in [-2^31, 2^31), got up to {np.abs(labels).max()}")
    labels = labels.astype({"b": bool, "i": np.int32, "u": np.int32}.get(kind, np.float32))
    if np.isnan(labels).any():
        raise ValueError("labels hold NaN, with which nothing compares")
    return labels


def _in_box(images: np.ndarray, threat: Threat | None) -> np.ndarray:
    """The images clipped to the box of a threat; only rounding may have taken them outside."""
    rows = np.arange(len(images))
    box = jax.vmap(lambda row, x: box_of(of_example(threat, row), x))(rows, images)
    low, high = (_per_image(np.asarray(end, np.float32)) for end in box)
    slack = TOLERANCE * np.maximum(np.abs(images).max(), 1)
    if (images < low - slack).any() or (images > high + slack).any():
        least, most = low.min(), high.max()
        raise ValueError(
            f"pixels must lie in [{least:g}, {most:g}], got {images.min():g} to {images.max():g}; "
            "divide by 255, and put any normalisation inside the model, or give the threat the "
            "bounds of the images: Linf(eps, bounds=(low, high))"
        )
    return np.clip(images, low, high)


def _per_image(values: np.ndarray) -> np.ndarray:
    """(N, ...) -> (N, ..., H, W, C) or what broadcasts to it."""
    return values.reshape(len(values), *(1,) * (4 - values.ndim), *values.shape[1:])


def are_classes(targets: Any) -> bool:
    """Whether targets are classes: one array (N,) of integers."""
    return isinstance(targets, np.ndarray) and targets.ndim == 1 and targets.dtype.kind in "iu"
