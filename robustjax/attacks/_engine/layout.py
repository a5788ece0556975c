"""Inputs of any shape as images (H, W, C), in which the engine and all threats are written.

A vector (D,) becomes (D, 1, 1), a signal (T, C) becomes (T, 1, C), anything longer (rest, W, C); a
pytree becomes the vector of all its entries. Images stay as they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from robustjax.attacks._core.randomized import Randomized
from robustjax.attacks._engine.examples import check_on_host
from robustjax.checks import check_layout, shown
from robustjax.threats._trees import ROWS, map_threats

T = TypeVar("T")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Layout:
    """The shapes of one example.

    Attributes:
      structure: of the pytree; a leaf for a single array.
      shapes: of its arrays, without the axis of the examples.
      count: N, the number of examples.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    count: int = dataclasses.field(compare=False)

    @property
    def is_array(self) -> bool:
        """Whether an example is a single array."""
        return jax.tree_util.treedef_is_leaf(self.structure)

    @property
    def is_image(self) -> bool:
        """Whether an example is an image (H, W, C)."""
        return self.is_array and len(self.shapes[0]) == 3

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of an example; of a pytree (D,), all its entries."""
        return self.shapes[0] if self.is_array else (sum(map(math.prod, self.shapes)),)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (H, W, C) of an example inside the engine."""
        shape = self.example_shape
        if len(shape) < 3:
            length, channels = (*shape, 1, 1)[:2]
            return length, 1, channels
        return math.prod(shape[:-2]), shape[-2], shape[-1]

    def pack(self, inputs: Any) -> np.ndarray:
        """A pytree of (N, ...) -> images (N, H, W, C) on the host.

        Raises:
          ValueError: an array among several that is not of floats.
        """
        if self.is_array:
            return np.asarray(inputs).reshape(-1, *self.image_shape)
        columns = []
        for path, leaf in jax.tree_util.tree_leaves_with_path(inputs, is_leaf=_is_list):
            leaf = np.asarray(leaf)
            if leaf.dtype.kind not in "fV":
                raise ValueError(
                    f"inputs{jax.tree_util.keystr(path)} must be floats, got {leaf.dtype}: attacks "
                    "change all inputs; put those that stay inside the model"
                )
            columns.append(leaf.astype(np.float32).reshape(self.count, -1))
        return np.concatenate(columns, 1).reshape(-1, *self.image_shape)

    def unpack(self, images: Any) -> Any:
        """The inverse of `pack`, for any number of examples, of NumPy or JAX."""
        if self.is_array:
            return images.reshape(-1, *self.shapes[0])
        flat, leaves, start = images.reshape(len(images), -1), [], 0
        for shape in self.shapes:
            end = start + math.prod(shape)
            leaves.append(flat[:, start:end].reshape(-1, *shape))
            start = end
        return jax.tree.unflatten(self.structure, leaves)

    def model(self, logits_fn: Any) -> Any:
        """A model of batches of inputs as one of batches of images."""
        if self.is_image or not callable(logits_fn) or isinstance(logits_fn, type):
            return logits_fn
        if isinstance(logits_fn, Randomized):
            inner = jax.tree_util.Partial(_on_images_with_key, self, logits_fn.function)
            return logits_fn.with_function(inner)
        if not isinstance(logits_fn, jax.tree_util.Partial):
            logits_fn = jax.tree_util.Partial(logits_fn)
        return jax.tree_util.Partial(_on_images, self, logits_fn)

    def attack(self, attack: T) -> T:
        """An attack, or any tree of configs, whose threats are written for inputs -> for images.

        Raises:
          ValueError: a part of it moves pixels, and there are none; or an array in a threat that
            does not fit the inputs.
        """
        if self.is_image:
            return attack

        def of_images(node):
            return getattr(type(node), "moves_pixels", False)

        for node in jax.tree.leaves(attack, is_leaf=of_images):
            if of_images(node):
                raise ValueError(
                    f"{type(node).__name__} moves the pixels of images (N, H, W, C); the inputs "
                    f"are {self}"
                )
        return map_threats(self._threat, attack)

    def _threat(self, threat: Any) -> Any:
        fields = {f.name: getattr(threat, f.name) for f in dataclasses.fields(threat)}
        packed = {name: self._values(name, fields[name]) for name in ROWS if name in fields}
        return dataclasses.replace(threat, **packed)

    def _values(self, name: str, value: Any) -> Any:
        """A field of a threat: numbers and one per example stay, other arrays become images."""
        if isinstance(value, tuple):
            return tuple(self._values(name, end) for end in value)
        if value is None or np.ndim(value) == 0:
            return value
        value, shape, count = np.asarray(value), self.example_shape, self.count
        if value.shape == (count,):
            if shape == (count,) and count > 1:
                raise ValueError(
                    f"{name} of shape {value.shape} is ambiguous, as there are as many examples as "
                    f"features: write ({count}, 1) for one per example, (1, {count}) for one per "
                    "feature"
                )
            if shape != (1,):
                return value
        rows = len(value) if value.ndim > len(shape) else 1
        if value.size == rows == count and value.ndim > len(shape):
            return value.reshape(-1)
        axes = (1, *shape) if rows == 1 else (count, *shape)
        try:
            whole = np.broadcast_to(value, axes)
        except ValueError:
            text = ", ".join(map(str, shape))
            raise ValueError(
                f"{name} of shape {value.shape} does not fit inputs {self}: write one per feature "
                f"as ({text}{',' * (len(shape) == 1)}) or what broadcasts to it, one per example "
                f"as ({count},), both as ({count}, {text})"
            ) from None
        packed = whole.reshape(rows, *self.image_shape)
        return packed[0] if rows == 1 else packed

    def __str__(self) -> str:
        """The shapes, with N for the axis of the examples."""
        shapes = [f"(N, {', '.join(map(str, s))})" if s else "(N,)" for s in self.shapes]
        return str(jax.tree.unflatten(self.structure, shapes)).replace("'", "")


def layout_of(inputs: Any) -> Layout:
    """The layout of inputs (N, ...), an array or a pytree of arrays.

    Raises:
      ValueError: called while JAX traces; or inputs that are no arrays, have no entries, or
        different numbers of examples.
    """
    check_on_host(inputs)
    leaves, structure = jax.tree.flatten(inputs, is_leaf=_is_list)
    try:
        shapes = [np.shape(leaf) for leaf in leaves]
    except ValueError:  # a ragged list
        shapes = []
    if not shapes or not all(shapes) or not all(map(math.prod, shapes)):
        raise ValueError(
            "images must be an array (N, H, W, C), or inputs of any other shape: an array (N, ...) "
            f"or a pytree of such, N >= 1; got {shown(inputs)}"
        )
    counts = {shape[0] for shape in shapes}
    if len(counts) > 1:
        raise ValueError(
            "all inputs need the same leading axis, one entry per example; got the shapes "
            f"{', '.join(map(str, shapes))}"
        )
    layout = Layout(structure, tuple(tuple(shape[1:]) for shape in shapes), counts.pop())
    if layout.is_image:
        check_layout("images", shapes[0])
    return layout


def as_given(model: Any, images: jax.ShapeDtypeStruct) -> tuple[Callable, Any]:
    """The function behind a checked model, and the shapes that it gets for a batch of images."""
    function = model.function if isinstance(model, Randomized) else model
    if getattr(function, "func", None) not in (_on_images, _on_images_with_key):
        return model, images
    layout, inner = function.args
    if isinstance(model, Randomized):
        inner = model.with_function(inner)
    return inner, jax.eval_shape(layout.unpack, images)


def _is_list(node: Any) -> bool:
    """Lists are arrays, and no pytrees."""
    return isinstance(node, list)


def _on_images(layout: Layout, function: Callable, images: jax.Array) -> Any:
    return function(layout.unpack(images))


def _on_images_with_key(layout: Layout, function: Callable, key: Any, images: jax.Array) -> Any:
    return function(key, layout.unpack(images))
