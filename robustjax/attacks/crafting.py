"""Run an attack over any number of images; survivors of each stage are packed into full tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from robustjax.attacks.ensemble import Ensemble, prediction
from robustjax.attacks.examples import Examples, check_request, one_example
from robustjax.attacks.tiles import over_tiles
from robustjax.typing import Attack, Threat

TOLERANCE = 1e-6
"""How far outside its ball a result may lie: float32 rounding, relative to eps and in pixels."""


@runtime_checkable
class Bounded(Protocol):
    """An attack that stays inside a ball."""

    threat: Threat


def perturb(
    attack: Attack,
    logits_fn: Callable,
    key: jax.Array,
    images: Any,
    labels: Any,
    *,
    targets: Any = None,
    indices: Any = None,
    batch_size: int = 256,
    progress: bool = False,
) -> np.ndarray:
    """Adversarial images for any number of images, on all devices.

    Args:
      attack: any attack; an ensemble's stages each see only the examples that still resist.
      logits_fn: a batch (B, H, W, C) -> logits (B, K); see `check_model`.
      key: example i uses fold_in(key, indices[i]).
      images: (N, H, W, C), floats in [0, 1] or uint8.
      labels: (N,) integers, the true labels.
      targets: arrays (N, ...) for attacks with a given target.
      indices: (N,) integers that name the examples; None: 0 to N - 1.
      batch_size: images per tile, all devices together.
      progress: show a progress bar.

    Returns:
      (N, H, W, C) float32 in [0, 1].

    Raises:
      ValueError: unusable images, labels, model, key or batch size.
      RuntimeError: the attack left its ball or the pixel box, or returned NaN.

    Guarantees:
      The result does not depend on `batch_size`, nor, with indices permuted along, on the order:
      bit for bit, as long as the model's own kernels round alike for every tile (two images per
      device and more on the CPU).
      Three eps, and new weights of a `Partial`, compile once.
    """
    model, key, examples, batch_size = check_request(
        logits_fn, key, images, labels, indices, batch_size, targets
    )
    title = type(attack).__name__ if progress else None
    return craft(attack, model, key, examples, batch_size, title)[0]


def craft(
    attack: Attack,
    model: jax.tree_util.Partial,
    key: jax.Array,
    examples: Examples,
    batch_size: int,
    progress: str | None = None,
    path: tuple[int, ...] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """`perturb` for checked arguments: (images, distances in the norm of the attack's threat).

    `path` says which stage of which stage this is: the keys that `Ensemble.__call__` would use.
    """
    if not isinstance(attack, Ensemble):
        shared = (attack, model, key, np.asarray(path, np.int32))
        result = over_tiles(_attack_one, shared, examples.rows(), batch_size, progress)
        _verify(attack, *result)
        return result
    images, distances = examples.image.copy(), np.zeros(len(examples), np.float32)
    alive = np.arange(len(examples))
    for i, stage in enumerate(attack.stages):
        title = progress and f"{progress} {i + 1}/{len(attack.stages)}"
        now = examples[alive]
        images[alive], distances[alive] = craft(
            stage, model, key, now, batch_size, title, (*path, i)
        )
        alive = alive[predict(model, images[alive], batch_size) == now.label]
        if not alive.size:
            break
    return images, distances


def predict(model: jax.tree_util.Partial, images: np.ndarray, batch_size: int) -> np.ndarray:
    """The predicted class of each image (N,); -1, which is never right, where a logit is NaN."""
    return over_tiles(_predict_one, (model,), images, batch_size)


def _attack_one(attack, model, key, path, row):
    key = jax.random.fold_in(key, row["index"])
    for i in path:
        key = jax.random.fold_in(key, i)
    x = row["image"]
    x_adv = attack(one_example(model), key, x, row["label"], row["target"])
    distance = attack.threat.distance(x_adv, x) if isinstance(attack, Bounded) else jnp.nan
    return x_adv, jnp.asarray(distance, jnp.float32)


def _predict_one(model, x):
    return prediction(one_example(model)(x))


def _verify(attack: Attack, images: np.ndarray, distances: np.ndarray) -> None:
    """No number is reported for an image that the threat model does not allow."""
    name = type(attack).__name__
    if not np.isfinite(images).all():
        raise RuntimeError(f"{name} returned NaN or infinite pixels")
    if images.min() < 0 or images.max() > 1:
        raise RuntimeError(f"{name} returned pixels outside [0, 1]")
    if isinstance(attack, Bounded):
        allowed = float(attack.threat.eps) * (1 + TOLERANCE) + TOLERANCE
        if distances.max() > allowed:
            raise RuntimeError(
                f"{name} returned a distance of {distances.max():.9g}, more than eps = "
                f"{float(attack.threat.eps):.9g}"
            )
