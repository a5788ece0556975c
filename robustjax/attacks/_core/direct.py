"""Calls of an attack itself, which takes one image and a model of one image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from robustjax.outputs import has_logits


@contextlib.contextmanager
def on_one_image(logits_fn: Callable, x: jax.Array) -> Iterator[None]:
    """Around the run of an attack: if it fails on something made for a batch, say so.

    Raises:
      ValueError: x is a batch, or the model takes one.
    """
    if x.ndim == 4:
        raise ValueError(
            f"an attack takes one image (H, W, C), got the shape {x.shape}; map it over a batch, "
            "jax.vmap(lambda key, x, y: attack(logits_of_one, key, x, y))(keys, images, labels), "
            "or call attacks.perturb"
        )
    try:
        yield
    except (TypeError, ValueError) as error:
        if not _has_logits(logits_fn, x) and _has_logits(lambda x: _first(logits_fn(x[None])), x):
            raise ValueError(
                "the model takes a batch (B, H, W, C), and an attack that is called itself gives "
                "it one image: pass lambda x: logits_fn(x[None])[0], or call attacks.perturb"
            ) from error
        raise


def _first(output: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], output)


def _has_logits(logits_fn: Callable, x: jax.Array) -> bool:
    try:
        return has_logits(jax.eval_shape(logits_fn, x))
    except Exception:
        return False
