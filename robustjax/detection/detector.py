"""A detector: a configuration that `fit` turns into a function of one image, its score."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from robustjax.attacks._core.randomized import Randomized
from robustjax.attacks._core.success import fooled
from robustjax.attacks._engine.examples import Examples
from robustjax.attacks._engine.inputs import check_request
from robustjax.attacks._engine.layout import layout_of
from robustjax.attacks._engine.model import one_example
from robustjax.attacks._engine.tiles import over_tiles
from robustjax.checks import INF, checked, in_body
from robustjax.config import config
from robustjax.deterministic import ordered_sum
from robustjax.outputs import logits_of
from robustjax.threats import Linf
from robustjax.threats._ball import Bounds
from robustjax.typing import LogitsFn


class Detector(abc.ABC):
    """A rule that scores one image by its statistics; higher = more normal.

    >>> images = np.float32([0.75, 0.25, 0.5, 0.5]).reshape(2, 1, 1, 2)
    >>> fitted = rj.detection.MaxMargin().fit(lambda x: x[:, 0, 0], images, [0, 1])
    >>> float(fitted(images[0]))
    0.5
    """

    reads_pixels: ClassVar[bool] = False
    """Whether the images must lie in [0, 1], whatever the model takes."""

    def fit(
        self,
        model: Callable,
        images: Any,
        labels: Any,
        *,
        bounds: Bounds = (0.0, 1.0),
        batch_size: int | None = None,
    ) -> Fitted:
        """Learn what the statistics need from training images.

        Args:
          model: a batch (B, H, W, C) -> logits (B, K), or a pytree with 'logits' and 'features' for
            detectors that read layers (see `outputs.layers_of`), in evaluation mode. The weights of
            a `jax.tree_util.Partial` stay data.
          images: (N, H, W, C), floats in `bounds` or uint8, without augmentation; or inputs of any
            other shape, as attacks take them.
          labels: (N,) integers, the true labels.
          bounds: (low, high) of the inputs, as of a threat; None: unbounded.
          batch_size: images at once, all devices together.

        Raises:
          ValueError: unusable images, labels, model or batch size, or too few of them; or other
            bounds than [0, 1] for a detector that reads pixels.
        """
        box = Linf(0.0, bounds=bounds)
        if self.reads_pixels and not (bounds and all(map(np.array_equal, bounds, (0.0, 1.0)))):
            raise ValueError(
                f"{type(self).__name__} reads pixels in [0, 1], got bounds {bounds}: put the "
                "scaling inside the model (models.normalized)"
            )
        key, read = jax.random.key(0), {"success": fooled}  # it has to have logits
        layout = layout_of(images)
        images, shaped = layout.pack(images), layout.model(model)
        given = images, labels, None, batch_size, None, layout.attack(box)
        request = check_request(shaped, key, *given, **read)
        placed, _, examples, batch_size = request
        model = model if isinstance(model, Partial | Randomized) else Partial(model)
        return Fitted(self, model, self.learn(placed, examples, batch_size), box)

    def learn(self, model: Callable, examples: Examples, batch_size: int | None) -> Any:
        """Compute the arrays that `statistics` needs; by default none."""
        return ()

    @abc.abstractmethod
    def statistics(self, learned: Any, logits_fn: LogitsFn, x: jax.Array) -> jax.Array:
        """One image (H, W, C) -> () or, of a detector with several statistics, (S,)."""


@config
class Fitted:
    """A detector, the model it watches and what it has learned: a function of one image.

    A pytree whose arrays are leaves, so a compiled program takes it as an argument. `box` has the
    bounds of its inputs.

    Guarantees:
      The score is a function of its image alone.
      Fitting to new images, or to new weights of a `Partial`, compiles nothing.

    >>> images = np.float32([0.75, 0.25, 0.5, 0.5]).reshape(2, 1, 1, 2)
    >>> fitted = rj.detection.MaxMargin().fit(lambda x: x[:, 0, 0], images, [0, 1])
    >>> isinstance(fitted, rj.detection.Fitted), fitted.statistics(images[0]).tolist()
    (True, [0.5])
    """

    detector: Detector
    model: Callable
    learned: Any
    box: Linf = Linf(0.0)

    def statistics(self, x: jax.Array) -> jax.Array:
        """Image (H, W, C) -> (S,)."""
        found = self.detector.statistics(self.learned, one_example(self.model), x)
        return jnp.reshape(found, -1)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Image (H, W, C) -> (), the sum of the statistics: higher = more normal."""
        return ordered_sum(self.statistics(x))


@checked(images=in_body, batch_size=(1, INF))
def scores(
    fitted: Callable[[jax.Array], Any], images: Any, *, batch_size: int | None = None
) -> np.ndarray:
    """The score of any number of images, on all devices.

    Args:
      fitted: a fitted detector, or several joined by `combine`.
      images: (N, H, W, C), floats in the bounds that the detector was fitted with, or uint8; or
        inputs of another shape.
      batch_size: images at once, all devices together.

    Returns:
      (N,) float32, higher = more normal.

    Raises:
      ValueError: unusable images or batch size.

    Guarantees:
      No bit depends on `batch_size` if the model's own kernels do not.

    >>> images = np.float32([0.75, 0.25, 0.5, 0.5]).reshape(2, 1, 1, 2)
    >>> fitted = rj.detection.MaxMargin().fit(lambda x: x[:, 0, 0], images, [0, 1])
    >>> rj.detection.scores(fitted, images).tolist()
    [0.5, 0.0]
    """
    return over_images(_score, fitted, images, batch_size)


def over_images(function: Callable, fitted: Any, images: Any, batch_size: int | None) -> np.ndarray:
    """`function(fitted, image)` of every image, for a module's function: (N, ...)."""
    layout = layout_of(images)
    watched = layout.model(Partial(_batched, Partial(function), fitted))
    boxes = [part.box for part in jax.tree.leaves(fitted, is_leaf=_is_fitted) if _is_fitted(part)]
    labels, box = np.zeros(layout.count, int), layout.attack(boxes[:1])
    given = layout.pack(images), labels, None, batch_size, None, box
    request = check_request(watched, jax.random.key(0), *given)
    watched, _, examples, batch_size = request
    return over_tiles(_watch_one, (watched,), {"image": examples.image}, batch_size)


def _is_fitted(part: Any) -> bool:
    return isinstance(part, Fitted)


def collect(
    read: Callable[[Any], Any], model: Callable, images: np.ndarray, batch_size: int | None
) -> Any:
    """`read(output)` of every image, as NumPy arrays (N, ...); `read` is a module's function."""
    shared = (jax.tree_util.Partial(read), model)
    return over_tiles(_read_one, shared, {"image": images}, batch_size)


@checked
def with_score(
    fitted: Callable[[jax.Array], Any], threshold: float | np.ndarray | jax.Array = 0.0
) -> Partial:
    """A model for attacks: images (B, H, W, C) -> {'logits': (B, K), 'score': (B,)}.

    A loss (output, target) -> scalar that reads both attacks classifier and detector together; a
    loss that reads the logits alone ignores the detector.

    Args:
      fitted: a fitted detector.
      threshold: subtracted from the score, so that 'score' >= 0 means accepted; a number, or (K,),
        one for each predicted class.

    Raises:
      ValueError: a threshold of another shape, or NaN.

    >>> images = np.float32([0.75, 0.25, 0.5, 0.5]).reshape(2, 1, 1, 2)
    >>> fitted = rj.detection.MaxMargin().fit(lambda x: x[:, 0, 0], images, [0, 1])
    >>> watched = rj.detection.with_score(fitted, threshold=0.25)
    >>> watched(images)["score"].tolist()
    [0.25, -0.25]
    """
    least = np.asarray(threshold, np.float32)
    if least.ndim > 1 or np.isnan(least).any():
        raise ValueError(f"the threshold must be a number, or one for each class; got {threshold}")
    return Partial(_batched, Partial(_logits_and_score), (fitted, least))


@checked(y="< K")
def accepted_and_wrong(output: Any, y: jax.Array) -> jax.Array:
    """Success against `with_score`: the classifier is wrong and the detector accepts the image.

    For the field `success` of attacks and the argument `success` of `attacks.perturb` and
    `evaluation.evaluate`, whose accuracy is then 1 - the fraction accepted and wrong.

    >>> output = {"logits": jnp.array([1.0, 2.0]), "score": jnp.array(0.1)}
    >>> [bool(rj.detection.accepted_and_wrong(output, label)) for label in (0, 1)]
    [True, False]
    """
    return fooled(output, y) & (output["score"] >= 0)


def _batched(function, fitted, images):
    return jax.vmap(lambda x: function(fitted, x))(images)


def _score(fitted, x):
    return fitted(x)


def _logits_and_score(watched, x):
    fitted, threshold = watched
    logits = logits_of(one_example(fitted.model)(x))
    if threshold.ndim and threshold.shape != logits.shape:
        raise ValueError(
            f"there are {len(threshold)} thresholds for {logits.size} classes; give one for each "
            "class, or one number for all"
        )
    least = jnp.asarray(threshold)[jnp.argmax(logits)] if threshold.ndim else threshold
    return {"logits": logits, "score": fitted(x) - least}


def _watch_one(watched, row):
    return watched(row["image"][None])[0]


def _read_one(read, model, row):
    return jax.tree.map(jnp.asarray, read(one_example(model)(row["image"])))
