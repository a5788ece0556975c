"""Networks of other libraries, or of your own, behind the calls that `Classifier` answers.

An adapter says how its library draws and runs a module; what all of them need is here: the input
normalisation, an example's own random draw, and statistics that are right on any number of devices.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from robustjax.checks import INF, checked
from robustjax.models.nets.layers import BN
from robustjax.models.trees import flatten, unflatten
from robustjax.outputs import part
from robustjax.parallel import AXIS

IMAGE = "image"
"""The axis that a batch becomes where every image has a draw of its own."""

ADVICE = {
    "both": "let it return {'logits': (B, K), 'features': (B, D)}",
    "features": "give it a method `features`, or let it return {'logits', 'features'}",
}
"""How a module of another library comes to answer a call."""


class Network(Protocol):
    """The interface that training and evaluation need: `Classifier` and `Foreign` have it.

    >>> model: rj.models.Network = rj.models.create("cnn", num_classes=10)
    >>> callable(model.init) and callable(model.apply)
    True
    """

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """(key, images, bn) -> variables."""

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """(variables, images, bn, keys) -> logits, by default."""


class Ran(NamedTuple):
    """One pass of a module.

    Attributes:
      output: what it returned.
      features: what it calls features, if it told.
      stats: all collections but the parameters, after the pass.
      synchronised: prefixes of the statistics that are already those of all `bn.axes`.
    """

    output: Any
    features: Any
    stats: dict[str, Any]
    synchronised: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Foreign(abc.ABC):
    """A module of another library as a network.

    Args:
      module: of a type that the adapter knows.
      mean, std: of each image channel, in [0, 1] pixels; the module sees (x - mean) / std.

    Guarantees:
      In the modes 'batch', 'commit' and 'capture' batch normalisation sees the batch on all of
      `bn.axes`, so gradients under vmap are those of the plain batch.
      An example's random draw depends only on its own key.

    `adapt` picks the subclass for a module:

    >>> from flax import linen as nn
    >>> model = rj.models.adapt(nn.Dense(10), std=(0.5,))
    >>> isinstance(model, rj.models.Foreign), model.title, model.std
    (True, 'Dense', (0.5,))
    """

    module: Any = dataclasses.field(kw_only=False)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def title(self) -> str:
        """The module's name in errors."""
        return type(self.module).__name__

    @abc.abstractmethod
    def init(self, key: jax.Array, x: jax.Array, bn: BN) -> dict[str, Any]:
        """Variables as nested dictionaries with names for keys: {'params': ..., ...}."""

    @abc.abstractmethod
    def run(self, variables: Any, x: jax.Array, bn: BN, key: jax.Array | None, method: str) -> Ran:
        """One pass over a batch; `key` is that of all its random draws, None where none is made."""

    @abc.abstractmethod
    def draws(self, image_shape: Sequence[int]) -> bool:
        """Whether it draws random numbers in training, on images of this shape."""

    @abc.abstractmethod
    def answers(self, method: str) -> bool:
        """Whether the module has this method."""

    def without_weights(self) -> Foreign:
        """An equal network that holds no arrays, for caches."""
        return self

    def apply(
        self,
        variables: Any,
        x: jax.Array,
        bn: BN,
        keys: jax.Array | None = None,
        *,
        method: str = "__call__",
        mutable: Any = False,
    ) -> Any:
        """Run the module as `Classifier.apply` runs: -> output, or (output, statistics).

        Raises:
          ValueError: the module has no such method, or returns no logits (B, K).
        """
        if method not in ("__call__", "both", "features") and not self.answers(method):
            raise ValueError(
                f"{self.title} has no method `{method}`, which this training method or detector "
                "needs; write one, or take a network of robustjax.models"
            )
        if method != "rest":
            x = self.normalised(x)
        if keys is None:
            out, stats = self._pass(variables, x, bn, None, method)
        else:
            per_image = bn._replace(axes=(IMAGE, *bn.axes))

            def one(key, image):
                key = jax.random.clone(key)  # all passes that are given it draw alike
                return self._pass(variables, image[None], per_image, key, method)

            keys = jnp.broadcast_to(keys, x.shape[:1])
            out, stats = jax.vmap(one, out_axes=(0, None), axis_name=IMAGE)(keys, x)
            out = jax.tree.map(lambda a: a[:, 0], out)
        return out if mutable is False else (out, stats)

    def normalised(self, x: jax.Array) -> jax.Array:
        """Images with the channels standardised."""
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value is not None and len(value) != x.shape[-1]:
                raise ValueError(
                    f"{name} has {len(value)} values for images of {x.shape[-1]} channels"
                )
        x = x if self.mean is None else x - jnp.array(self.mean, x.dtype).reshape(1, 1, 1, -1)
        return x if self.std is None else x / jnp.array(self.std, x.dtype).reshape(1, 1, 1, -1)

    def layers(self, variables: Any, images: jax.Array) -> dict[str, Any]:
        """What detectors look at: {'logits'}, and the 'features' of a module that has any."""
        try:
            features, logits = self.apply(variables, images, BN(), method="both")
        except NoFeatures:
            logits = self.apply(variables, images, BN())
            if not self.answers("features"):
                return {"logits": logits}
            features = self.apply(variables, images, BN(), method="features")
        return {"logits": logits, "features": (features,)}

    def _pass(
        self, variables: Any, x: jax.Array, bn: BN, key: jax.Array | None, method: str
    ) -> tuple[Any, dict[str, Any]]:
        """(what was asked for, statistics as the mode leaves them)."""
        ran = self.run(variables, x, bn, key, method)
        before = {name: tree for name, tree in variables.items() if name != "params"}
        stats = before
        if bn.mode != "running":
            after = _settled(before, ran.stats, ran.synchronised, bn)
            stats = after if bn.mode in ("commit", "capture") else before
        if method not in ("__call__", "both", "features"):
            return ran.output, stats
        answer = {}
        if method != "features":
            logits = part(ran.output, "logits", 0)
            if logits is None or jnp.ndim(logits) != 2 or len(logits) != len(x):
                shape = jax.tree.map(jnp.shape, ran.output)
                raise ValueError(
                    f"a network must return logits (B, K), {self.title} returned {shape}"
                )
            answer["logits"] = jnp.asarray(logits, jnp.float32)
        if method != "__call__":
            told = part(ran.output, "features", 1) if ran.features is None else ran.features
            features = told[-1] if isinstance(told, tuple | list) else told
            if features is None:
                raise NoFeatures(f"{self.title} tells no features: {ADVICE[method]}")
            answer["features"] = jnp.asarray(features, jnp.float32).reshape(len(x), -1)
        if method == "both":
            return (answer["features"], answer["logits"]), stats
        return answer.popitem()[1], stats


TRAINING = ("train", "training", "is_training")
EVALUATING = ("deterministic", "use_running_average", "inference")
"""Arguments that switch a module between training and evaluation, by what True means."""


def switches(method: Callable, training: bool) -> dict[str, bool]:
    """The arguments of a module's method that put it into training or evaluation."""
    known = inspect.signature(method).parameters
    switch = dict.fromkeys(TRAINING, training) | dict.fromkeys(EVALUATING, not training)
    return {name: value for name, value in switch.items() if name in known}


def check_call(title: str, call: Callable, given: tuple[str, ...] = ()) -> None:
    """Raise TypeError if a module asks for an argument that is no image, switch, or `given`."""
    for name, parameter in list(inspect.signature(call).parameters.items())[1:]:
        needed = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if needed and name not in TRAINING + EVALUATING + given:
            raise TypeError(
                f"{title}.__call__ asks for {name!r}; it is given images and, where it has one, "
                f"{', '.join(TRAINING + EVALUATING + given)}. Give {name!r} a default"
            )


class NoFeatures(ValueError):
    """A module that has logits alone was asked for features."""


def _settled(before: Any, after: Any, synchronised: tuple[str, ...], bn: BN) -> dict[str, Any]:
    """The statistics after a pass, those of layers that know no axes averaged over the devices.

    Raises:
      ValueError: such a layer has seen a single example.
    """
    before, after = map(flatten, (before, after))
    for name, value in after.items():
        own = value is before[name] or not jnp.issubdtype(value.dtype, jnp.inexact)
        if own or name.startswith(synchronised):
            continue
        if set(bn.axes) - {AXIS}:
            raise ValueError(
                f"a layer of your own updates {name}, and here it sees one image at a time: craft "
                "with bn='running', which is the default, leave dropout off, or use the library's "
                "BatchNorm"
            )
        after[name] = lax.pmean(value, bn.axes) if bn.axes else value
    return unflatten(after)


@checked
def is_random(network: Network, image_shape: tuple[int, ...]) -> bool:
    """Whether a network draws random numbers while it trains, as dropout does.

    >>> from robustjax import models
    >>> models.is_random(models.create("cnn", num_classes=3, dropout=0.5), (8, 8, 1))
    True
    """
    if not isinstance(network, Foreign):
        return bool(getattr(network, "dropout", 0))
    return _draws(network.without_weights(), image_shape)


@functools.cache
def _draws(network: Foreign, image_shape: tuple[int, ...]) -> bool:
    return network.draws(image_shape)


@checked(num_classes=(2, INF))
def check_classes(
    network: Network, variables: Mapping[str, Any], image_shape: Sequence[int], num_classes: int
) -> None:
    """Raise ValueError unless a network of your own has this many classes.

    >>> model = rj.models.create("cnn", num_classes=10)  # `create` has checked it
    >>> rj.models.check_classes(model, {}, (8, 8, 1), num_classes=10)
    """
    if isinstance(network, Foreign):
        x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        logits = jax.eval_shape(lambda v, x: network.apply(v, x, BN()), variables, x)
        if logits.shape[1] != num_classes:
            raise ValueError(
                f"{network.title} returns {logits.shape[1]} logits, but the data have "
                f"{num_classes} classes"
            )
