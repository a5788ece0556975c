"""Views of a network for detectors that need more than logits: its layers, its dropout draws."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from jax.tree_util import Partial

from robustjax.checks import checked
from robustjax.models.adapters.base import Foreign
from robustjax.models.classifier import Classifier
from robustjax.models.nets.blocks import MaxPool
from robustjax.models.nets.layers import BN, Conv
from robustjax.models.trees import flatten


@dataclasses.dataclass(frozen=True)
class _Layers:
    """A forward pass that returns its layers; equal models make equal programs."""

    model: Classifier

    def __call__(self, variables: Any, images: jax.Array) -> dict[str, Any]:
        (features, logits), kept = self.model.apply(
            variables,
            images,
            BN("running"),
            method="both",
            capture_intermediates=_is_layer,
            mutable=["intermediates"],
        )
        more = {}
        if self.model.auxiliary is not None:
            more = {
                "auxiliary": self.model.apply(variables, features, BN("running"), method="trust")
            }
        found = flatten(kept["intermediates"])
        layers = [found[name][0] for name in sorted(found, key=_place)]
        return {"logits": logits, "features": (*layers, features)} | more


@dataclasses.dataclass(frozen=True)
class _Told:
    """A forward pass of a network that names its own features."""

    model: Foreign

    def __call__(self, variables: Any, images: jax.Array) -> dict[str, Any]:
        return self.model.layers(variables, images)


@checked
def activations(model: Classifier | Foreign, variables: Mapping[str, Any]) -> Partial:
    """Bind weights: images (B, H, W, C) -> {'logits': (B, K), 'features': a tuple of layers}.

    The layers are, in order, the stem, each block (or each convolution of a network without
    blocks), and the features (B, D) that the head sees. A transformer's are tokens (B, N, D). With
    an auxiliary head there is also 'auxiliary': (B,).

    Guarantees:
      The logits and the last layer are those of `apply`.
      The weights are leaves, as in `apply`.

    >>> model = rj.models.create("cnn", num_classes=10)
    >>> def layers(key, images):
    ...     variables = rj.models.init(model, key, (8, 8, 1))
    ...     return rj.models.activations(model, variables)(images)["features"]
    >>> found = jax.eval_shape(layers, jax.random.key(0), jnp.zeros((5, 8, 8, 1)))
    >>> [layer.shape for layer in found]  # stem, convolution, features
    [(5, 4, 4, 32), (5, 2, 2, 64), (5, 512)]
    """
    if isinstance(model, Foreign):
        return Partial(_Told(model), variables)
    return Partial(_Layers(model), variables)


@checked
def with_layers(logits_fn: Partial) -> Partial:
    """`activations` of a network that `apply`, `load` or `from_torch` has bound to its weights.

    Your own network has the features that it returns, see `adapt`.

    >>> model = rj.models.create("cnn", num_classes=10)
    >>> def layers(key, images):
    ...     logits_fn, _ = rj.models.apply(model, rj.models.init(model, key, (8, 8, 1)))
    ...     return rj.models.with_layers(logits_fn)(images)["features"]
    >>> len(jax.eval_shape(layers, jax.random.key(0), jnp.zeros((5, 8, 8, 1))))
    3
    """
    return activations(_model_of(logits_fn), *logits_fn.args)


@dataclasses.dataclass(frozen=True)
class _Draw:
    """A forward pass without dropout, and its head (of your own network, everything) with it."""

    model: Classifier | Foreign

    def __call__(self, variables: Any, key: jax.Array, images: jax.Array) -> dict[str, Any]:
        if isinstance(self.model, Foreign):
            logits, drawn = (
                self.model.apply(variables, images, BN(), keys) for keys in (None, key)
            )
            return {"logits": logits, "drawn": drawn}
        features, logits = self.model.apply(variables, images, BN("running"), method="both")
        drawn = self.model.apply(variables, features, key, method="answer")
        return {"logits": logits, "drawn": drawn}


@checked
def with_dropout(logits_fn: Partial) -> Partial:
    """A network with its dropout left on, for `attacks.Randomized`.

    Args:
      logits_fn: from `apply` or `load`.

    Returns:
      (key, images (B, H, W, C)) -> {'logits': (B, K), 'drawn': (B, K)}: the logits without dropout,
      by which the network predicts, and one draw with dropout, which drops the same features of
      every image.

    Raises:
      ValueError: the network has no dropout.

    Guarantees:
      The logits are those of `logits_fn`; with a linear head they are the mean over all draws.

    >>> model = rj.models.create("cnn", num_classes=10, dropout=0.5)
    >>> def draw(key, images):
    ...     init_key, key = jax.random.split(key)
    ...     logits_fn, _ = rj.models.apply(model, rj.models.init(model, init_key, (8, 8, 1)))
    ...     return rj.models.with_dropout(logits_fn)(key, images)["drawn"]
    >>> jax.eval_shape(draw, jax.random.key(0), jnp.zeros((5, 8, 8, 1))).shape
    (5, 10)
    """
    model = _model_of(logits_fn)
    if isinstance(model, Classifier) and not model.dropout:
        raise ValueError("the network has no dropout to leave on; train with --dropout")
    return Partial(_Draw(model), *logits_fn.args)


def _model_of(logits_fn: Partial) -> Classifier | Foreign:
    """The network of a function that has its weights bound."""
    model = getattr(logits_fn.func, "model", None)
    if not isinstance(model, Classifier | Foreign):
        raise ValueError("logits_fn must come from models.apply, models.load or models.from_torch")
    return model


def _is_layer(module: nn.Module, method: str) -> bool:
    """Whether a module is the stem, a block (named by `run_blocks`) or a convolution outside."""
    if method != "__call__" or not module.path or isinstance(module, MaxPool):
        return False
    *above, name = module.path
    inside = any(part.startswith("stage") for part in above)
    return name == "stem" or name.startswith("stage") or (isinstance(module, Conv) and not inside)


def _place(name: str) -> tuple:
    """stem, body/conv, body/stage1_block2 before body/stage1_block10."""
    *_, above, _ = path = name.split("/")
    return "stem" not in path, [int(n) for n in re.findall(r"\d+", above)]
