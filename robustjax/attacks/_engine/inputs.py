"""Checks of what users pass: a model, images, labels, targets."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks._core.iterative import TOLERANCE
from robustjax.attacks._core.randomized import Randomized
from robustjax.attacks._core.success import logits_of
from robustjax.attacks._engine.tiles import default_batch_size
from robustjax.parallel import place
from robustjax.threats import Linf, box_of
from robustjax.threats._trees import check_threats, map_threats, of_example, threats_of
from robustjax.typing import Threat


@dataclasses.dataclass(frozen=True)
class Examples:
    """N examples as NumPy arrays.

    Attributes:
      image: (N, H, W, C) float32.
      label: (N,) the true classes.
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


def check_request(
    logits_fn: Callable,
    key: jax.Array,
    images: Any,
    labels: Any,
    indices: Any,
    batch_size: int | None,
    targets: Any = None,
    attacks: Any = None,
) -> tuple[jax.tree_util.Partial, jax.Array, Examples, int]:
    """Check what `perturb`, `evaluate` and `curve` share -> (model, key, examples, tile size).

    `attacks` is one attack or a list of them: their threats say where the pixels may lie.

    Raises:
      ValueError: not a PRNG key, batch_size < 1, or as `check_examples` and `check_model`.
    """
    if getattr(key, "dtype", None) == np.uint32 and key.shape == (2,):
        key = jax.random.wrap_key_data(key)  # jax.random.PRNGKey(0)
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed or key.ndim:
        raise ValueError(f"key must be one PRNG key, such as jax.random.key(0); got {key!r}")
    if batch_size is None:
        batch_size = default_batch_size()
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    examples = check_examples(images, labels, indices, targets, attacks)
    return check_model(logits_fn, examples), key, examples, min(batch_size, len(examples))


def check_attack(attack: Any) -> None:
    """Raise ValueError unless `attack` looks like one; JAX would say less, and much later."""
    name = type(attack).__name__
    if isinstance(attack, type) or not callable(attack):
        raise ValueError(f"an attack is an object such as PGD(Linf(8 / 255)), got {attack!r}")
    if not hasattr(threat := getattr(attack, "threat", Linf()), "project"):
        raise ValueError(f"{name} needs a threat such as Linf(8 / 255), got {threat!r}")
    map_threats(lambda threat: threat, attack)  # looks at each
    if not callable(loss := getattr(attack, "loss", check_attack)):
        raise ValueError(f"{name} needs a loss such as robustjax.losses.dlr, got {loss!r}")


def check_examples(
    images: Any, labels: Any, indices: Any = None, targets: Any = None, attacks: Any = None
) -> Examples:
    """Images and labels from outside.

    Args:
      images: (N, H, W, C), uint8, which is divided by 255, or floats in the boxes of the attacks'
        threats, [0, 1] by default. Pixels outside by rounding alone are clipped.
      labels: (N,) integers, the true labels.
      indices: (N,) integers that name the examples, and seed them; None: 0 to N - 1.
      targets: (N,) integers, the classes to reach; or a pytree of arrays (N, ...) for losses that
        compare with something else; None: none.
      attacks: one attack or a list of them; None: none.

    Raises:
      ValueError: a wrong shape or dtype, pixels outside the box or not finite, a negative label, a
        target that is its image's label, or a threat that does not fit the images.
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
    for name, values in (("labels", labels), ("indices", indices)):
        if values.shape != (len(images),) or values.dtype.kind not in "iu":
            raise ValueError(
                f"{name} must be {len(images)} integers, one per image; "
                f"got {values.dtype} of shape {values.shape}"
            )
        if values.min() < 0 or values.max() >= 2**31:
            bad = values.min() if values.min() < 0 else values.max()
            raise ValueError(f"{name} must lie in [0, 2^31), got {bad}")
    targets = jax.tree.map(np.asarray, targets)
    for leaf in jax.tree.leaves(targets):
        if leaf.shape[:1] != labels.shape:
            raise ValueError(f"targets must have a leading axis {len(images)}, got {leaf.shape}")
    if are_classes(targets):
        if (same := np.flatnonzero(targets == labels)).size:
            raise ValueError(
                f"a target is a class to reach, but that of image {same[0]} is its own label, "
                f"{labels[same[0]]}: give it another, or leave such images out"
            )
        targets = targets.astype(np.int32)
    position = np.arange(len(images), dtype=np.int32)
    return Examples(images, labels.astype(np.int32), indices.astype(np.int32), position, targets)


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


def check_model(logits_fn: Callable, examples: Examples) -> jax.tree_util.Partial:
    """The model as a pytree whose weights are data, placed on this process's devices.

    Args:
      logits_fn: a batch (B, H, W, C) -> (B, K), or a pytree of (B, ...) for attacks whose loss
        reads more than logits. A `jax.tree_util.Partial(apply, variables)` keeps the weights out
        of the program, so that new weights need no compilation. Any other callable is part of the
        program, with everything it closes over: the program is cached by the callable's identity,
        weights included, until `jax.clear_caches()`.
      examples: the images and labels that it will see.

    Raises:
      ValueError: a leaf of a Partial that is not an array, a model that fails on these images, an
        output without the batch axis, or a label the model has no logit for.
    """
    if not isinstance(logits_fn, jax.tree_util.Partial | Randomized):
        logits_fn = jax.tree_util.Partial(logits_fn)
    for leaf in jax.tree.leaves(logits_fn):
        if not isinstance(leaf, jax.typing.ArrayLike):
            raise ValueError(
                "a Partial model may hold arrays and numbers only, not "
                f"{type(leaf).__name__}; put {leaf!r} inside the function"
            )
    try:
        output = _output_of(logits_fn, examples)
    except (TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"logits_fn must be a JAX function of a batch (B, H, W, C); given one image of shape "
            f"{examples.image.shape[1:]}, it fails: {reason}"
        ) from error
    shapes = [leaf.shape for leaf in jax.tree.leaves(output)]
    if any(shape[:1] != (1,) for shape in shapes):
        raise ValueError(
            "logits_fn must take a batch (B, H, W, C) and return (B, K); for B = 1 it returned "
            f"{shapes}"
        )
    logits = output if isinstance(output, Mapping) and "logits" not in output else logits_of(output)
    shape = getattr(logits, "shape", ())
    if len(shape) == 2 and examples.label.max() >= shape[1]:
        raise ValueError(
            f"the model has {shape[1]} classes, but there is a label {examples.label.max()}"
        )
    if len(shape) == 2 and are_classes(targets := examples.target):
        wrong = targets[(targets < 0) | (targets >= shape[1])]
        if wrong.size:
            raise ValueError(f"the model has {shape[1]} classes, but there is a target {wrong[0]}")
    return place(logits_fn, None)


def num_classes(model: Callable, examples: Examples) -> int:
    """K, the number of logits that a checked model returns."""
    return logits_of(_output_of(model, examples)).shape[-1]


def one_example(logits_fn: Callable) -> Callable:
    """A model of a batch -> the same model of one image."""
    if isinstance(logits_fn, Randomized):
        return Randomized(lambda key, x: _first(logits_fn.function(key, x[None])), logits_fn.key)
    return lambda x: _first(logits_fn(x[None]))


def _first(output: Any) -> Any:
    return jax.tree.map(lambda a: a[0], output)


def _output_of(model: Callable, examples: Examples) -> Any:
    """The shapes of what a model returns for one image."""
    leaves, structure = jax.tree.flatten(model)
    types = [jax.typeof(leaf) for leaf in leaves]
    structs = tuple(jax.ShapeDtypeStruct(t.shape, t.dtype) for t in types)
    return _output(structure, structs, examples.image.shape[1:])


@functools.lru_cache(maxsize=8)
def _output(structure, structs, image_shape):
    """The shapes that a model returns for one image; cached, since it costs a trace.

    The last few only: the structure of a closure holds its weights. (JAX's own cache of programs
    holds them too, but can be cleared by `jax.clear_caches`.)
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    return jax.eval_shape(
        lambda leaves, x: jax.tree.unflatten(structure, leaves)(x), structs, image
    )
