"""Networks by name, and what one does with them: create, init, apply, save, load.

model = create("preact-resnet-18", num_classes=10, mean=MEAN, std=STD)
variables = init(model, jax.random.key(0), (32, 32, 3))
logits = model.apply(variables, images, BN("running"))
logits_fn, features_fn = apply(model, variables)
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jax.tree_util import Partial

from robustjax.models.classifier import Classifier
from robustjax.models.cnn import cnn
from robustjax.models.heads import Linear
from robustjax.models.layers import BN
from robustjax.models.layers import activation as lookup_activation
from robustjax.models.preact_resnet import preact_resnet_18
from robustjax.models.resnet import resnet_v1, resnet_v2
from robustjax.models.weights import load_weights, save_weights
from robustjax.models.wide_resnet import wide_resnet

__all__ = [
    "BN",
    "Classifier",
    "apply",
    "create",
    "init",
    "load",
    "load_weights",
    "names",
    "save_weights",
]

# what people type, the pattern, the builder of (stem, body), the default width
ARCHITECTURES: tuple[tuple[str, str, Callable, int], ...] = (
    ("cnn", r"cnn", cnn, 32),
    ("resnet-DEPTH (6n+2: resnet-20, -32, -56, -110)", r"resnet-(\d+)", resnet_v1, 16),
    ("resnet-v2-DEPTH (6n+2, pre-activation)", r"resnet-v2-(\d+)", resnet_v2, 16),
    ("preact-resnet-18", r"preact-resnet-18", preact_resnet_18, 64),
    ("wrn-DEPTH-FACTOR (6n+4: wrn-28-10, wrn-34-10)", r"wrn-(\d+)-(\d+)", wide_resnet, 16),
)
HEADS: dict[str, Callable[[int], nn.Module]] = {"linear": Linear}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def names() -> tuple[str, ...]:
    """The names `create` knows, as people type them."""
    return tuple(name for name, *_ in ARCHITECTURES)


def create(
    name: str,
    *,
    num_classes: int,
    activation: str = "relu",
    dtype: str = "float32",
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    head: str = "linear",
    remat: bool = False,
) -> Classifier:
    """Build a network; every argument is JSON, so a run's config holds them as they are.

    Args:
      name: one of `names()`.
      num_classes: K.
      activation: replaces every activation; see `layers.activation`.
      dtype: 'float32' or 'bfloat16': what the stem and the body compute in.
      width: channels of the first stage; None is the architecture's own.
      mean, std: of each image channel, in [0, 1] pixels; None leaves the pixels as they are.
      head: 'linear'.
      remat: recompute residual blocks in the backward pass, for less memory and a third more time.

    Raises:
      ValueError: an unknown name or an impossible depth, with what is known.
    """
    lookup_activation(activation)
    for kind, key, known in (("dtype", dtype, DTYPES), ("head", head, HEADS)):
        if key not in known:
            raise ValueError(f"unknown {kind} {key!r}; choose one of {', '.join(known)}")
    if std is not None and not all(s > 0 for s in std):
        raise ValueError(f"std must be positive, got {tuple(std)}")
    for _, pattern, build, default in ARCHITECTURES:
        if match := re.fullmatch(pattern, name):
            stem, body = build(
                *map(int, match.groups()),
                width=default if width is None else width,
                activation=activation,
                dtype=DTYPES[dtype],
                remat=remat,
            )
            return Classifier(
                stem=stem,
                body=body,
                head=HEADS[head](num_classes),
                mean=None if mean is None else tuple(mean),
                std=None if std is None else tuple(std),
                dtype=DTYPES[dtype],
            )
    raise ValueError(f"unknown model {name!r}; known: {', '.join(names())}")


def init(model: Classifier, key: jax.Array, image_shape: Sequence[int]) -> dict[str, Any]:
    """Draw variables: {'params': ...}, and 'batch_stats' where the network normalises.

    Args:
      model: from `create`.
      key: PRNG key.
      image_shape: (H, W, C).
    """
    return jax.jit(model.init, static_argnums=2)(
        key, jnp.zeros((1, *image_shape), jnp.float32), BN("running")
    )


@dataclasses.dataclass(frozen=True)
class _Forward:
    """One method of a model with running statistics; equal models make equal programs."""

    model: Classifier
    method: str

    def __call__(self, variables: Any, images: jax.Array) -> jax.Array:
        return self.model.apply(variables, images, BN("running"), method=self.method)


def apply(model: Classifier, variables: Any) -> tuple[Partial, Partial]:
    """Bind weights: (logits_fn, features_fn), images (B, H, W, C) -> (B, K) and (B, D).

    Guarantees:
      The weights are leaves of the functions, arguments of a program and never its constants, so
      new weights do not compile again.
    """
    return (
        Partial(_Forward(model, "__call__"), variables),
        Partial(_Forward(model, "features"), variables),
    )


def load(
    run_dir: str | os.PathLike[str], weights: str = "best"
) -> tuple[Partial, Partial, dict[str, Any]]:
    """Read a trained run: config.json (its "model": the arguments of `create`; "image_shape").

    Args:
      run_dir: what `robustjax.training.fit` left.
      weights: 'best' on validation (weights.npz) or 'last' (weights_last.npz).

    Returns:
      (logits_fn, features_fn, config).

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is torn, or the weights are not those of the model that the config names.
    """
    path = Path(run_dir) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run_dir} is no run directory: there is no {path.name} in it")
    try:
        config = json.loads(path.read_text())
        model, shape = create(**config["model"]), tuple(config["image_shape"])
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is torn; restore it from the command that made the run"
        ) from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} does not describe a model: {error}") from error
    path = Path(run_dir) / {"best": "weights.npz", "last": "weights_last.npz"}[weights]
    variables = load_weights(path)
    expected = jax.eval_shape(lambda key: init(model, key, shape), jax.random.key(0))
    _check_shapes(path, variables, expected)
    return *apply(model, jax.tree.map(jnp.asarray, variables)), config


def _check_shapes(path: Path, variables: Any, expected: Any) -> None:
    def shapes(tree):
        flat = traverse_util.flatten_dict(tree, sep="/")
        return {name: f"{a.dtype} {tuple(a.shape)}" for name, a in flat.items()}

    found, wanted = shapes(variables), shapes(expected)
    wrong = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
    if wrong:
        raise ValueError(
            f"{path} holds other weights than config.json names: {wrong[0]} is "
            f"{found.get(wrong[0], 'missing')} in the file, {wanted.get(wrong[0], 'missing')} in the "
            f"model ({len(wrong)} such); put the files of one run together"
        )
