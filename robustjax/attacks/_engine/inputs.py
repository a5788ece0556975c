"""Checks of what users pass: a model, images, labels, targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from robustjax import keys, outputs
from robustjax.attacks._core.iterative import TOLERANCE
from robustjax.attacks._core.randomized import Randomized
from robustjax.attacks._core.success import Success, fooled
from robustjax.attacks._engine.failures import advice_for, advice_for_model
from robustjax.parallel import place
from robustjax.threats import Linf, box_of
from robustjax.threats._trees import check_threats, map_threats, of_example, threats_of
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


def check_request(
    logits_fn: Callable,
    key: jax.Array,
    images: Any,
    labels: Any,
    indices: Any,
    batch_size: int | None,
    targets: Any = None,
    attacks: Any = None,
    success: Success | None = None,
) -> tuple[jax.tree_util.Partial, jax.Array, Examples, int | None]:
    """Check what `perturb`, `evaluate` and `curve` share -> (model, key, examples, batch_size).

    `attacks` is one attack or a list of them: their threats say where the pixels may lie.
    `success` says whether labels are classes (None, `fooled`) or whatever it reads.

    Raises:
      ValueError: called while JAX traces, not a PRNG key, batch_size < 1, or as `check_examples`
        and `check_model`.
    """
    given = jax.tree.leaves((logits_fn, key, images, labels, indices, targets))
    if any(isinstance(leaf, Tracer) for leaf in (*given, jnp.zeros(()) + 0)):
        raise ValueError(
            "perturb, evaluate and curve run on the host: call them outside jax.jit, jax.vmap and "
            "jax.grad; inside, map the attack itself over the images, "
            "jax.vmap(lambda key, x, y: attack(logits_of_one, key, x, y)): see docs/own_loop.md"
        )
    key = keys.threefry(key)
    whole = batch_size is None or isinstance(batch_size, int | np.integer)
    if not whole or (batch_size is not None and batch_size < 1):
        raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}")
    examples = check_examples(images, labels, indices, targets, attacks, success)
    return check_model(logits_fn, examples, success), key, examples, batch_size


def check_attack(attack: Any) -> None:
    """Raise ValueError unless `attack` looks like one; JAX would say less, and much later."""
    name = type(attack).__name__
    if isinstance(attack, type) or not callable(attack):
        raise ValueError(f"an attack is an object such as PGD(Linf(8 / 255)), got {attack!r}")
    threats_of(attack)
    strange = [leaf for leaf in jax.tree.leaves(attack) if not isinstance(leaf, ArrayLike)]
    if strange:
        raise ValueError(
            "an attack of your own is a class with @robustjax.config.config, or a function inside "
            f"jax.tree_util.Partial(function); got {name} with {strange[0]!r}"
        )
    if not hasattr(threat := getattr(attack, "threat", Linf()), "project"):
        raise ValueError(f"{name} needs a threat such as Linf(8 / 255), got {threat!r}")
    map_threats(lambda threat: threat, attack)  # looks at each
    if not callable(loss := getattr(attack, "loss", check_attack)):
        raise ValueError(f"{name} needs a loss such as robustjax.losses.dlr, got {loss!r}")


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
    _check_layout(images.shape)
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


def _check_layout(shape: tuple[int, ...]) -> None:
    """Raise ValueError for square images, or such of 3 channels, that have the channels first."""
    _, first, height, width = shape
    if min(height, width) >= 8 and (first == 3 or (first == 1 and height == width)):
        raise ValueError(
            f"images of shape {shape} have their channels first, and they are read as (N, H, W, C):"
            " give images.transpose(0, 2, 3, 1), and if the model wants channels first, "
            "lambda x: model(x.transpose(0, 3, 1, 2))"
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


def check_model(
    logits_fn: Callable, examples: Examples, success: Success | None = None
) -> jax.tree_util.Partial:
    """The model as a pytree whose weights are data, placed on this process's devices.

    Args:
      logits_fn: a batch (B, H, W, C) -> (B, K), or a pytree of (B, ...) for attacks whose loss
        reads more than logits. A `jax.tree_util.Partial(apply, variables)` keeps the weights out
        of the program, so that new weights need no compilation. Any other callable is part of the
        program, with everything it closes over: the program is cached by the callable's identity,
        weights included, until `jax.clear_caches()`.
      examples: the images and labels that it will see.
      success: what will read its output beside a label; None: nothing.

    Raises:
      ValueError: a leaf of a Partial that is not an array, a model that fails on these images, an
        output without the batch axis, a label the model has no logit for, or an output that
        `success` cannot read.
    """
    if not callable(logits_fn) or isinstance(logits_fn, type):
        raise ValueError(
            "logits_fn must be a function of a batch (B, H, W, C) -> (B, K), such as "
            f"jax.tree_util.Partial(apply, variables); got {_kind(logits_fn)}"
        )
    if not isinstance(logits_fn, jax.tree_util.Partial | Randomized):
        logits_fn = jax.tree_util.Partial(logits_fn)
    for leaf in jax.tree.leaves(logits_fn):
        if not isinstance(leaf, ArrayLike):
            raise ValueError(
                "a Partial model may hold arrays and numbers only, not "
                f"{type(leaf).__name__}; put {leaf!r} inside the function"
            )
    output = _output_of(logits_fn, examples)
    if success is not None:
        _check_success(success, output, examples.label)
    if classes := outputs.num_classes(output):
        logits = outputs.logits_of(output)
        if not any(jnp.issubdtype(logits.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            raise ValueError(f"logits must be real numbers, got {logits.dtype}")
        for name, values in (("label", examples.label), ("target", examples.target)):
            wrong = values[(values < 0) | (values >= classes)] if are_classes(values) else ()
            if len(wrong):
                worst = wrong[np.abs(wrong).argmax()]
                raise ValueError(f"the model has {classes} classes, but there is a {name} {worst}")
    return place(logits_fn, None)


def _check_success(success: Success, output: Any, labels: np.ndarray) -> None:
    """Raise ValueError unless `success` makes one bool of an output and a label."""
    label = jax.ShapeDtypeStruct(labels.shape[1:], labels.dtype)
    try:
        won = jax.eval_shape(success, output, label)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"success(output, label) fails on an output of {_shapes(output)} and a label of shape "
            f"{label.shape}: {advice_for(error)}"
        ) from error
    if getattr(won, "shape", None) != () or won.dtype != bool:
        raise ValueError(
            "success(output, label) must return one bool for one example, as (a != b).any() does; "
            f"for an output of {_shapes(output)} and a label of shape {label.shape} it returned "
            f"{won}"
        )


def num_classes(model: Callable, examples: Examples) -> int:
    """K, the number of logits that a checked model returns; 0 for a model without."""
    return outputs.num_classes(_output_of(model, examples))


def one_example(logits_fn: Callable) -> Callable:
    """A model of a batch -> the same model of one image."""
    if isinstance(logits_fn, Randomized):
        return Randomized(lambda key, x: _first(logits_fn.function(key, x[None])), logits_fn.key)
    return lambda x: _first(logits_fn(x[None]))


def _first(output: Any) -> Any:
    return jax.tree.map(lambda a: a[0], output)


def _output_of(model: Callable, examples: Examples) -> Any:
    """The shapes of what a model returns for one image, without the axis of the batch."""
    shape = examples.image.shape[1:]
    output = _traced(_whole, model, (1, *shape))
    shapes = [leaf.shape for leaf in jax.tree.leaves(output)]
    if not shapes or any(shape[:1] != (1,) for shape in shapes):
        raise ValueError(
            "logits_fn must take a batch (B, H, W, C) and return (B, K), each array with the axis "
            f"B; for B = 1 it returned {shapes}: give jax.vmap(model) if it takes one image, "
            "jnp.stack a list, and leave statistics out (mutable=False in linen)"
        )
    _traced(_one_by_one, model, (2, *shape))  # as attacks will call it
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), output)


def _traced(program: Any, model: Callable, shape: tuple[int, ...]) -> Any:
    """The shapes of the output on images of this shape; remembered until `jax.clear_caches`."""
    images = jax.ShapeDtypeStruct(shape, np.float32)
    try:
        return program.eval_shape(model, images)
    except Exception as error:
        raise ValueError(
            f"logits_fn must be a JAX function of a batch (B, H, W, C); on images of shape "
            f"{shape} it fails: {advice_for_model(error, model, images)}"
        ) from error


@jax.jit
def _whole(model, images):
    return model(images)


@jax.jit
def _one_by_one(model, images):
    return jax.vmap(one_example(model), axis_name="example")(images)


def _kind(given: Any) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__


def _shapes(output: Any) -> str:
    """The shapes of an output's arrays."""
    return str([leaf.shape for leaf in jax.tree.leaves(output)])
