"""Networks by name: create, initialise and apply them."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.tree_util import Partial

from robustjax.checks import INF, checked
from robustjax.models.adapt import FACTORIES, Factory, adapt, build, is_own
from robustjax.models.adapters.base import Foreign, Network
from robustjax.models.classifier import Classifier
from robustjax.models.heads import Auxiliary, attach
from robustjax.models.nets import layers
from robustjax.models.nets.cnn import cnn
from robustjax.models.nets.densenet import densenet
from robustjax.models.nets.dpn import dpn
from robustjax.models.nets.googlenet import googlenet
from robustjax.models.nets.layers import BN, torch_uniform, unit_uniform
from robustjax.models.nets.mobilenet import efficientnet_b0, mobilenet_v2
from robustjax.models.nets.preact_resnet import preact_resnet_18, preact_resnet_50, senet_18
from robustjax.models.nets.regnet import regnet
from robustjax.models.nets.residual import Residual
from robustjax.models.nets.resnet import resnet_18, resnet_tf, resnet_v1, resnet_v2
from robustjax.models.nets.resnext import resnext_29
from robustjax.models.nets.shufflenet_v2 import shufflenet_v2
from robustjax.models.nets.vgg import vgg
from robustjax.models.nets.vit import vit
from robustjax.models.nets.wide_resnet import wide_resnet


class Architecture(NamedTuple):
    """What people type, its paper, the pattern, the builder of (stem, body), and its defaults."""

    name: str
    paper: str
    pattern: str
    build: Callable[..., tuple[nn.Module, nn.Module]]
    width: int
    activation: str = "relu"
    last_init: Callable = torch_uniform


ARCHITECTURES = (
    Architecture("cnn", "-", r"cnn", cnn, 32),
    Architecture(
        "resnet-18", "He et al. 2016", r"resnet-18", resnet_18, 64
    ),  # ahead of one that would refuse it
    Architecture(
        "resnet-DEPTH (6n+2: resnet-20, -32, -56, -110)",
        "He et al. 2016",
        r"resnet-(\d+)",
        resnet_v1,
        16,
    ),
    Architecture(
        "resnet-v2-DEPTH (6n+2, pre-activation)",
        "He et al. 2016",
        r"resnet-v2-(\d+)",
        resnet_v2,
        16,
    ),
    Architecture(
        "resnet-tf-DEPTH (6n+2, pre-activation, leaky)",
        "He et al. 2016",
        r"resnet-tf-(\d+)",
        resnet_tf,
        16,
        "leaky_relu",
        unit_uniform,
    ),
    Architecture("preact-resnet-18", "He et al. 2016", r"preact-resnet-18", preact_resnet_18, 64),
    Architecture("preact-resnet-50", "He et al. 2016", r"preact-resnet-50", preact_resnet_50, 64),
    Architecture(
        "wrn-DEPTH-FACTOR (6n+4: wrn-28-10, wrn-34-10)",
        "Zagoruyko & Komodakis 2016",
        r"wrn-(\d+)-(\d+)",
        wide_resnet,
        16,
    ),
    Architecture("vgg-DEPTH (11, 13, 16, 19)", "Simonyan & Zisserman 2015", r"vgg-(\d+)", vgg, 64),
    Architecture("googlenet", "Szegedy et al. 2015", r"googlenet", googlenet, 192),
    Architecture(
        "densenet-DEPTH (121, 169, 201)", "Huang et al. 2017", r"densenet-(\d+)", densenet, 64
    ),
    Architecture("senet-18", "Hu et al. 2018", r"senet-18", senet_18, 64),
    Architecture(
        "resnext-29-GROUPSxWIDTH (resnext-29-2x64, -32x4)",
        "Xie et al. 2017",
        r"resnext-29-(\d+)x(\d+)",
        resnext_29,
        64,
    ),
    Architecture("regnetx-200mf", "Radosavovic et al. 2020", r"regnet(x)-(200)mf", regnet, 24),
    Architecture("regnetx-400mf", "Radosavovic et al. 2020", r"regnet(x)-(400)mf", regnet, 32),
    Architecture("regnety-400mf", "Radosavovic et al. 2020", r"regnet(y)-(400)mf", regnet, 32),
    Architecture("dpn-DEPTH (26, 92)", "Chen et al. 2017", r"dpn-(\d+)", dpn, 96),
    Architecture("mobilenet-v2", "Sandler et al. 2018", r"mobilenet-v2", mobilenet_v2, 32),
    Architecture(
        "efficientnet-b0", "Tan & Le 2019", r"efficientnet-b0", efficientnet_b0, 32, "silu"
    ),
    Architecture("shufflenet-v2", "Ma et al. 2018", r"shufflenet-v2", shufflenet_v2, 116),
    Architecture("vit-ti-PATCH", "Dosovitskiy et al. 2021", r"vit-ti-(\d+)", vit, 192, "gelu"),
    Architecture(
        "vit-s-PATCH (vit-s-4 for 32x32 images)",
        "Dosovitskiy et al. 2021",
        r"vit-s-(\d+)",
        vit,
        384,
        "gelu",
    ),
    Architecture("vit-b-PATCH", "Dosovitskiy et al. 2021", r"vit-b-(\d+)", vit, 768, "gelu"),
)
BEFORE_A_NUMBER = r"(?<=[a-z])-(?=\d|\(\\d)"
"""A dash that people leave out."""

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
    if _architecture(name):
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
    found = _architecture(name)
    if found is None:
        known = {own.name.split()[0].lower(): own.name for own in ARCHITECTURES}
        near = difflib.get_close_matches(_spelled(name), known, 1, 0.7)
        meant = f"did you mean {known[near[0]]}? " if near else ""
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


def _spelled(name: str) -> str:
    return name.lower().replace("_", "-")


def _architecture(name: str) -> tuple[Architecture, list[int | str]] | None:
    """The architecture of this name, and the sizes in it."""
    for own in ARCHITECTURES:
        pattern = re.sub(BEFORE_A_NUMBER, "-?", own.pattern)
        if match := re.fullmatch(pattern, _spelled(name)):
            return own, [int(part) if part.isdigit() else part for part in match.groups()]
    return None


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
