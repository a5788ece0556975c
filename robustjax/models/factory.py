"""Networks by name: create, initialise and apply them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.tree_util import Partial

from robustjax.checks import INF, checked
from robustjax.models.adapt import FACTORIES, Factory, adapt, build, is_own
from robustjax.models.adapters.base import Foreign, Network
from robustjax.models.architectures import ARCHITECTURES, architecture, near
from robustjax.models.classifier import Classifier
from robustjax.models.heads import Auxiliary, attach
from robustjax.models.nets import layers
from robustjax.models.nets.layers import BN
from robustjax.models.nets.residual import Residual

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def names() -> tuple[str, ...]:
    """The names that `create` knows, and those that were registered.

    >>> rj.models.names()[:2]
    ('cnn', 'resnet-18')
    """
    return (*(architecture.name for architecture in ARCHITECTURES), *FACTORIES)


@checked
def register(name: str, factory: Factory) -> None:
    """Make a network of your own known by name, to `training.fit`, `load` and the command line.

    Args:
      name: e.g. 'my-net'. A factory that is named as 'package.module:factory' needs none.
      factory: (num_classes=..., and settings of its own) -> a module, see `adapt`; one without
        `num_classes` decides itself. `fit(model={"name": "my-net", "depth": 3})` sets its depth.

    Raises:
      ValueError: the name is another's.

    >>> register("my-net", lambda num_classes, depth=1: nn.Dense(num_classes))
    >>> "my-net" in names()
    True
    """
    if architecture(name):
        raise ValueError(f"the model {name!r} is robustjax's own; choose another name")
    FACTORIES.register(name, factory)


@checked(num_classes=(2, INF))
def network(model: Mapping[str, Any] | str | Any, num_classes: int) -> Network:
    """The network that `training.fit(model=...)` is given.

    Args:
      model: the arguments of `create`, or of your own factory, by a name that you have registered
        or as 'package.module:factory'; such a name alone; or a module, see `adapt`.
      num_classes: K.

    Raises:
      ValueError, TypeError: see `create` and `adapt`; a factory that is not there, or takes other
        settings.

    >>> network("cnn", num_classes=3).head.num_classes
    3
    """
    if isinstance(model, str):
        model = {"name": model}
    if not isinstance(model, Mapping):
        return adapt(model)
    settings = {**model, "num_classes": num_classes}
    return build(**settings) if is_own(settings.get("name", "")) else create(**settings)


@checked(num_classes=(2, INF), width=(1, INF))
def create(
    name: str,
    *,
    num_classes: int,
    activation: str | None = None,
    dtype: str = "float32",
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    head: str = "linear",
    feature_dim: int | None = None,
    center_norm: float | None = None,
    center_seed: int | None = None,
    precisions: str | None = None,
    biases: Sequence[float] | None = None,
    scale: float | None = None,
    remat: bool = False,
    adaptive_norm: bool = False,
    teacher: str | None = None,
    auxiliary: bool = False,
    dropout: float = 0.0,
) -> Classifier:
    """Build a network; every argument is plain JSON, so a run's config stores them as they are.

    Args:
      name: one of `names()`. Case, underscores instead of dashes and a missing dash before the
        first number make no difference: PreAct_ResNet18, WRN-34-10.
      num_classes: K.
      activation: replaces all activations, see `layers.activation`; None is the architecture's own.
      dtype: compute dtype of the stem and the body, 'float32' or 'bfloat16'.
      width: channels of the first stage, or entries of a transformer's tokens; the other widths are
        proportional (except in ResNeXt, whose name has them). None is the architecture's own.
      mean, std: of each image channel, in [0, 1] pixels; None leaves the pixels as they are.
      head: 'linear' (softmax), 'cosine' (hypersphere embedding), or a member of the g-SCE family:
        'max-mahalanobis', 'random-centers', 'packing' (all fixed; the last is for more than
        feature_dim + 1 classes), 'lgm' (trained centers), 'gsce' (trained centers, precisions and
        biases), 'center' (linear beside running centers).
      feature_dim: D of a linear layer without activation between the body and the head, whose
        output are the features; None: no such layer. Fixed centers need it.
      center_norm: norm of fixed centers, 10 by default.
      center_seed: seed of random centers and of the search of a packing, 0 by default.
      precisions: for 'gsce', 'diagonal' (the default), 'isotropic' or 'full', for 'lgm' as well,
        whose default is 'half': unit covariances.
      biases: for fixed centers, what is added to each class's logit; None: nothing.
      scale: for 'cosine', the scale of the logits, 10 by default.
      remat: recompute blocks in the backward pass, for less memory and a third more time.
      adaptive_norm: make the scales and shifts of batch normalisation depend on the example.
      teacher: name of a second network that is trained together with this one, with a linear head
        and its own width and activation; only `Classifier.taught` runs it.
      auxiliary: add a second head, which estimates whether the prediction is right.
      dropout: the probability that a feature is set to zero before the head in training.

    Raises:
      ValueError: an unknown name or an impossible depth; centers that do not fit, or options of
        another head; no batch normalisation to adapt; a dropout outside [0, 1).

    >>> model = rj.models.create("wrn-28-10", num_classes=10, activation="silu")
    >>> model.body.widths
    (160, 320, 640)
    """
    if activation is not None:
        layers.activation(activation)
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    for size, value, least in (("width", width, 1), ("num_classes", num_classes, 2)):
        if value is not None and value < least:
            raise ValueError(f"{size} must be at least {least}, got {value}")
    if std is not None and not all(s > 0 for s in std):
        raise ValueError(f"std must be positive, got {tuple(std)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
    options = {"center_norm": center_norm, "center_seed": center_seed, "precisions": precisions}
    options |= {"scale": scale, "biases": None if biases is None else tuple(biases)}
    options = {option: value for option, value in options.items() if value is not None}
    shared = {"dtype": dtype, "mean": mean, "std": std, "remat": remat}
    found = architecture(name)
    if found is None:
        meant = near(name) and f"did you mean {near(name)}? "
        raise ValueError(f"unknown model {name!r}; {meant}known: {', '.join(names())}")
    own, sizes = found
    stem, body = own.build(
        *sizes,
        width=own.width if width is None else width,
        activation=own.activation if activation is None else activation,
        dtype=DTYPES[dtype],
        remat=remat,
    )
    if adaptive_norm:
        body = adapted(name, body)
    body, last = attach(body, num_classes, head, feature_dim, own.last_init, **options)
    return Classifier(
        stem=stem,
        body=body,
        head=last,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        dtype=DTYPES[dtype],
        teacher=create(teacher, num_classes=num_classes, **shared) if teacher else None,
        auxiliary=Auxiliary() if auxiliary else None,
        dropout=dropout,
    )


def adapted(name: str, body: nn.Module) -> Residual:
    """The body with AdaptiveNorm instead of BatchNorm."""
    if not isinstance(body, Residual):
        raise ValueError(
            f"{name} does not support adaptive_norm; choose a residual network, such as resnet-18"
        )
    return body.clone(norm=layers.AdaptiveNorm)


@checked
def init(model: Network, key: jax.Array, image_shape: Sequence[int]) -> dict[str, Any]:
    """Draw variables: {'params': ...} and the network's other collections (batch_stats, centers).

    Args:
      model: from `create` or `network`.
      key: PRNG key.
      image_shape: (H, W, C).

    >>> model = rj.models.create("preact-resnet-18", num_classes=10)
    >>> key, shape = jax.random.key(0), (32, 32, 3)
    >>> variables = jax.eval_shape(lambda key: rj.models.init(model, key, shape), key)
    >>> sorted(variables), variables["params"]["head"]["kernel"].shape
    (['batch_stats', 'params'], (512, 10))
    """
    x = jnp.zeros((1, *image_shape), jnp.float32)
    start = model.init if isinstance(model, Foreign) else jax.jit(model.init, static_argnums=2)
    return start(key, x, BN("running"))


@dataclasses.dataclass(frozen=True)
class _Forward:
    """One method of a model with running statistics; equal models make equal programs."""

    model: Network
    method: str

    def __call__(self, variables: Any, images: jax.Array) -> jax.Array:
        return self.model.apply(variables, images, BN("running"), method=self.method)


@checked
def apply(model: Network, variables: Mapping[str, Any]) -> tuple[Partial, Partial]:
    """Bind weights: (logits_fn, features_fn), images (B, H, W, C) -> (B, K) and (B, D).

    Guarantees:
      The weights are leaves of the functions: arguments of a program, never constants, so new
      weights do not compile again.

    >>> model = rj.models.create("cnn", num_classes=10)
    >>> def predict(key, images):
    ...     logits_fn, features_fn = rj.models.apply(model, rj.models.init(model, key, (8, 8, 1)))
    ...     return logits_fn(images), features_fn(images)
    >>> logits, features = jax.eval_shape(predict, jax.random.key(0), jnp.zeros((5, 8, 8, 1)))
    >>> logits.shape, features.shape
    ((5, 10), (5, 512))
    """
    return (
        Partial(_Forward(model, "__call__"), variables),
        Partial(_Forward(model, "features"), variables),
    )
