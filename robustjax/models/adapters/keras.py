"""Networks of Keras 3, on its JAX backend, as functions of images."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from robustjax.checks import checked
from robustjax.promotion import usual


class Evaluated:
    """A Keras model with given variables: (trainable, other, images) -> its output.

    Two of one model are equal, and share their compiled programs.
    """

    def __init__(self, model: Any):
        self.model = model

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Evaluated) and other.model is self.model

    def __hash__(self) -> int:
        return id(self.model)

    def __call__(self, trainable: list[Any], others: list[Any], images: jax.Array) -> Any:
        """The output of an evaluation.

        Raises:
          ValueError: the model updates a variable, as batch statistics and random draws do.
        """
        images = jnp.asarray(images)  # an array of NumPy would become a constant of a layer's own
        others = [jnp.asarray(value) for value in others]
        known = inspect.signature(self.model.call).parameters
        switch = {"training": False} if "training" in known else {}
        with usual():
            output, after = self.model.stateless_call(trainable, others, images, **switch)
        for variable, old, new in zip(
            self.model.non_trainable_variables, others, after, strict=True
        ):
            if new is not old:
                raise ValueError(
                    f"the Keras model updates {variable.path} in evaluation, too: build it without "
                    "training=True in its layers"
                )
        return jax.tree.map(_float32, output)


@checked
def from_keras(model: Any) -> Partial:
    """A model of Keras 3 in evaluation mode, as a function of images (B, H, W, C) in [0, 1].

    Keras has to run on JAX: set KERAS_BACKEND=jax in the environment before it is imported. The
    function holds the model's present weights; after more training call `from_keras` again, which
    compiles nothing. A model of channels first goes into `models.channels_first`.

    Args:
      model: built (it has an input shape, or has been called), without a softmax at its end.

    Returns:
      logits_fn: images -> the model's output; its variables are data.

    Raises:
      TypeError: `model` is no Keras model.
      ValueError: Keras runs on another backend, or the model is not built or ends in a softmax; or,
        where it is called, it updates its variables.

    >>> logits_fn = rj.models.from_keras(keras.saving.load_model("net.keras"))  # doctest: +SKIP
    >>> rj.models.from_keras(print)
    Traceback (most recent call last):
    TypeError: pass a Keras model, got builtin_function_or_method
    """
    keras: Any = sys.modules.get("keras")
    if keras is None or not isinstance(model, keras.Layer):
        raise TypeError(f"pass a Keras model, got {type(model).__name__}")
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=jax in the environment, "
            "or in os.environ before anything imports keras"
        )
    if not model.built:
        raise ValueError("the Keras model has no weights yet: call it once on images")
    last = _last(model)
    if last is not None and getattr(last, "activation", None) is keras.activations.softmax:
        raise ValueError(
            f"the Keras model ends in a softmax, and attacks need the logits before it: set "
            f"model.get_layer({last.name!r}).activation = None, or build it with activation=None "
            "(keras.applications: classifier_activation=None)"
        )
    if isinstance(last, keras.layers.Softmax):
        raise ValueError(
            "the Keras model ends in a softmax, and attacks need the logits before it: "
            "keras.Model(model.inputs, model.layers[-2].output)"
        )
    variables = (model.trainable_variables, model.non_trainable_variables)
    return Partial(Evaluated(model), *([jnp.array(v.value) for v in part] for part in variables))


def _last(model: Any) -> Any:
    """The layer that makes the first output; None where a model's own code does."""
    outputs = getattr(model, "outputs", None)
    if not outputs:
        return None
    layer = outputs[0]._keras_history.operation
    return _last(layer) or layer


def _float32(array: jax.Array) -> jax.Array:
    return array.astype(jnp.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array
