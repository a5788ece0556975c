"""The model of a run: a function from outside, checked on the shapes that it will see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from robustjax import outputs
from robustjax.attacks._core.randomized import Randomized
from robustjax.attacks._core.success import Success
from robustjax.attacks._engine.examples import Examples, are_classes
from robustjax.attacks._engine.failures import advice_for, advice_for_model
from robustjax.attacks._engine.layout import as_given
from robustjax.parallel import place


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
    classes = outputs.num_classes(output)
    if classes:
        logits = outputs.logits_of(output)
        if not any(jnp.issubdtype(logits.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            raise ValueError(f"logits must be real numbers, got {logits.dtype}")
    if success is not None:
        _check_success(success, output, examples.label)
    if classes:
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


def convolves(model: Callable, examples: Examples) -> bool:
    """Whether there is a convolution in a checked model."""
    images = jax.ShapeDtypeStruct((2, *examples.image.shape[1:]), np.float32)
    return "conv_general_dilated[" in str(_one_by_one.trace(model, images).jaxpr)


def one_example(logits_fn: Callable) -> Callable:
    """A model of a batch -> the same model of one image."""
    if isinstance(logits_fn, Randomized):
        return logits_fn.with_function(lambda key, x: _first(logits_fn.function(key, x[None])))
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
            "logits_fn must take a batch (B, ...) and return (B, K), each array with the axis "
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
        function, inputs = as_given(model, images)
        shapes = jax.tree.map(lambda leaf: leaf.shape, inputs)
        raise ValueError(
            f"logits_fn must be a JAX function of a batch; on inputs of shape {shapes} it fails: "
            f"{advice_for_model(error, function, inputs)}"
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
