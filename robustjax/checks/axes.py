"""The shape of an array, described by a text such as "N D"."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from robustjax.checks.kinds import as_array, check_array
from robustjax.checks.values import LARGEST, check_number, entries_of, is_array, shown


class Axes:
    """The shapes that a text describes, and whether the entries are whole numbers below a size."""

    def __init__(self, text: str):
        self.shapes = [_shape(option) for option in text.split("|")]

    def __str__(self):
        return " or ".join(map(str, self.shapes))

    def check(self, name: str, value: Any, sizes: dict[str, Any]) -> None:
        """Raise unless a value fits; note the sizes of its axes, or compare them with others."""
        if isinstance(value, list | tuple):
            value = as_array(name, value)
        check_array(name, value)
        size = np.shape(value)
        fitting = [shape for shape in self.shapes if shape.fits(size)]
        if not fitting:
            batch = any(shape.fits(size[1:]) for shape in self.shapes)
            mend = "; jax.vmap makes a batch" if batch else ""
            raise ValueError(f"{name} must have the shape {self}, got {size}{mend}")
        shape = fitting[0]
        rest = len(size) - len(shape.axes) + shape.leading
        found = [("...", size[:rest])] if shape.leading else []
        for axis, length in [*found, *zip(shape.axes[shape.leading :], size[rest:], strict=True)]:
            least = shape.least.get(axis, 1)
            if (0 in length) if axis == "..." else (length < least == 1):
                raise ValueError(f"{name} must not be empty, got the shape {size}")
            if axis != "..." and length < least:
                raise ValueError(f"{name} must have at least {least} entries {axis}, got {length}")
            known, owner = sizes.setdefault(axis, (length, name))
            if known != length:
                raise ValueError(
                    f"{name} must have the shape {self} with {axis} = {known}, as {owner} has it, "
                    f"got {size}"
                )
        if shape.below is not None:
            check_classes(name, value, sizes.get(shape.below, (LARGEST, ""))[0])


@dataclasses.dataclass(frozen=True)
class _Shape:
    """One of several shapes: the axes, the least size of some, and a bound on the entries."""

    axes: tuple[str, ...]
    least: dict[str, int]
    below: str | None

    @property
    def leading(self) -> bool:
        """Whether any number of axes may come first."""
        return self.axes[:1] == ("...",)

    def fits(self, size: tuple[int, ...]) -> bool:
        """Whether the number of axes is right."""
        return len(size) == len(self.axes) or (self.leading and len(size) >= len(self.axes) - 1)

    def __str__(self):
        shape = f"({', '.join(self.axes)}{',' if len(self.axes) == 1 else ''})"
        return shape if self.below is None else f"{shape} of whole numbers below {self.below}"


def _shape(text: str) -> _Shape:
    axes, less, below = text.partition("<")
    words = [axis.partition(">") for axis in axes.split()]
    least = {axis: int(most) + 1 for axis, more, most in words if more}
    return _Shape(tuple(w[0] for w in words), least, below.strip() if less else None)


def check_classes(name: str, value: Any, most: int) -> None:
    """Raise unless all entries are classes, whole numbers from 0 to `most` - 1.

    >>> rj.checks.check_classes("label", 3, 3)
    Traceback (most recent call last):
    ValueError: label must lie in [0, 2], got 3
    """
    if not (isinstance(value, int | float) or is_array(value)):
        raise TypeError(f"{name} must be of an integer type, a class, got {shown(value)}")
    kind = (value if is_array(value) else np.asarray(value)).dtype
    if not np.issubdtype(kind, np.integer):
        raise TypeError(f"{name} must be of an integer type, a class, got {shown(value)}")
    for entry in entries_of(value):
        if not 0 <= entry < most:
            raise ValueError(f"{name} must lie in [0, {most - 1}], got {entry}")


def check_distributions(name: str, value: Any) -> None:
    """Raise ValueError unless the last axis holds numbers of [0, 1] that sum to 1.

    >>> rj.checks.check_distributions("probabilities", np.array([0.5, 0.4]))
    Traceback (most recent call last):
    ValueError: probabilities must sum to 1 over the last axis, got a sum of 0.9
    """
    check_number(name, value, 0, 1)
    sums = np.sum(value, -1)
    if wrong := [total for total in np.ravel(sums) if abs(total - 1) > 1e-3]:
        raise ValueError(f"{name} must sum to 1 over the last axis, got a sum of {wrong[0]:.3g}")


def check_layout(name: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError for square images, or such of 3 channels, that have the channels first.

    >>> rj.checks.check_layout("images", (16, 3, 32, 32))
    Traceback (most recent call last):
    ValueError: images of shape (16, 3, 32, 32) have their channels first, and they are read as...
    """
    _, first, height, width = shape
    if min(height, width) >= 8 and (first == 3 or (first == 1 and height == width)):
        raise ValueError(
            f"{name} of shape {shape} have their channels first, and they are read as (N, H, W, C):"
            f" give {name}.transpose(0, 2, 3, 1), and if the model wants channels first, "
            "lambda x: model(x.transpose(0, 3, 1, 2))"
        )
