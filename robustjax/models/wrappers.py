"""Models that read images another way: channels first, or standardised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from robustjax.checks import check_finite, checked


@checked
def channels_first(logits_fn: Callable) -> Any:
    """A model of (B, C, H, W) as a model of (B, H, W, C), which attacks and threats expect.

    Args:
      logits_fn: the model; the weights of a `Partial` stay data, and a `Randomized` stays random.

    >>> model = rj.models.channels_first(lambda x: x[:, 0].sum((1, 2), keepdims=True)[..., 0])
    >>> model(jnp.ones((2, 4, 4, 3))).shape
    (2, 1)
    """
    return _after(Partial(_to_front), logits_fn)


@checked(mean=["C | ", check_finite], std=["C | ", check_finite])
def normalized(logits_fn: Callable, mean: Any, std: Any) -> Any:
    """A model of standardised images as a model of images in [0, 1].

    Args:
      logits_fn: the model; the weights of a `Partial` stay data, and a `Randomized` stays random.
      mean, std: of each channel (C,), or numbers; for images with channels last.

    Raises:
      ValueError: a standard deviation that is not positive.

    >>> model = rj.models.normalized(lambda x: x[:, 0, 0], mean=[0.5, 0.25], std=[0.5, 0.25])
    >>> model(jnp.ones((1, 4, 4, 2))).tolist()
    [[1.0, 3.0]]
    """
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if not (std > 0).all():
        raise ValueError(f"std must be positive, got {std.min():g}")
    return _after(Partial(_standardise, mean, std), logits_fn)


def _after(change: Partial, logits_fn: Callable) -> Any:
    """The model after a change of its images."""
    if hasattr(logits_fn, "with_function"):  # a Randomized
        return logits_fn.with_function(
            Partial(_call_with_key, change, _partial(logits_fn.function))
        )
    return Partial(_call, change, _partial(logits_fn))


def _partial(function: Callable) -> Partial:
    return function if isinstance(function, Partial) else Partial(function)


def _call(change: Callable, function: Callable, images: jax.Array) -> Any:
    return function(change(images))


def _call_with_key(change: Callable, function: Callable, key: Any, images: jax.Array) -> Any:
    return function(key, change(images))


def _to_front(images: jax.Array) -> jax.Array:
    return jnp.moveaxis(images, -1, 1)


def _standardise(mean: jax.Array, std: jax.Array, images: jax.Array) -> jax.Array:
    mean, std = (jnp.broadcast_to(a, images.shape) for a in (mean, std))
    return (images - mean) / std
