"""Weights on disk: a flat .npz that NumPy can read, in a run directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from robustjax.archives import read_arrays, write_arrays
from robustjax.checks import checked
from robustjax.files import digest, read_json
from robustjax.models.adapt import adapt
from robustjax.models.adapters.base import Network
from robustjax.models.factory import apply, init, network
from robustjax.models.trees import flatten, shapes, unflatten

CONFIG: dict[str, Any] = {
    "model": Mapping,
    "image_shape": [int],
    "data": {"name": str},
    "threat": {"type": str, "fields": Mapping},
    "class_names": [str],
}
"""The entries of config.json that loading and evaluating a run's model needs."""

DEEPEST = 64
"""Modules in modules, of which a variable's name has the names."""

DIGEST = "config_sha256"
"""The array of a weights file that says which config.json it belongs to; no variable's name."""


@checked
def save_weights(
    path: str | os.PathLike[str],
    variables: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write `variables` as arrays named 'params/body/.../kernel'.

    Args:
      path: the .npz.
      variables: nested dictionaries of arrays.
      config: the content of the config.json beside it, which `load` then requires; None: any.

    Guarantees:
      A reader sees the whole old file or the whole new one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rj.models.save_weights(f"{folder}/w.npz", {"params": {"head": {"bias": jnp.zeros(3)}}})
    ...     np.load(f"{folder}/w.npz").files
    ['params/head/bias']
    """
    arrays = flatten(jax.device_get(variables))
    if config is not None:
        arrays[DIGEST] = np.frombuffer(bytes.fromhex(digest(config)), np.uint8)
    write_arrays(path, arrays)


@checked
def load_weights(
    path: str | os.PathLike[str], config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read what `save_weights` wrote: {'params': ..., 'batch_stats': ...} of NumPy arrays.

    Args:
      path: the .npz.
      config: the content of the config.json beside it; None: it is not compared.

    Raises:
      OSError: there is no such file, or it cannot be read.
      ValueError: the file is damaged or not an uncompressed .npz, or was saved with another config.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rj.models.save_weights(f"{folder}/w.npz", {"params": {"head": {"bias": jnp.ones(2)}}})
    ...     rj.models.load_weights(f"{folder}/w.npz")
    {'params': {'head': {'bias': array([1., 1.], dtype=float32)}}}
    """
    variables, tie = _read(path)
    if config is not None and tie not in (None, digest(config)):
        raise ValueError(
            f"{path} was not saved with the config.json beside it, or that file has changed: "
            "restore both from one copy of the run, or delete config.json and rerun the training "
            "command with --resume, which writes both"
        )
    return variables


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], str | None]:
    """The variables, and the digest of their config.json if the file has it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there are no weights at {path}; has the run been trained?")
    try:
        arrays = read_arrays(path)
        tie = arrays.pop(DIGEST, None)
        if any(name.count("/") > DEEPEST for name in arrays):
            raise ValueError(f"{path} is damaged: a name has more than {DEEPEST} parts")
        return unflatten(arrays), None if tie is None else tie.tobytes().hex()
    except (ValueError, TypeError, LookupError) as error:  # names that contradict each other
        raise ValueError(
            f"{error}; rerun the training command of {path} with --resume to write it again"
        ) from error


@checked
def load(
    run_dir: str | os.PathLike[str],
    weights: Literal["best", "last"] = "best",
    dtype: str | None = None,
    module: Any = None,
) -> tuple[Partial, Partial, dict[str, Any]]:
    """Read a trained run: its config.json and one of its two files of weights.

    Args:
      run_dir: the run directory that `robustjax train` wrote.
      weights: the best weights on the validation split, or the last.
      dtype: compute dtype, 'float32' or 'bfloat16'; None: as in training.
      module: the run's network where it is your own: the module, as `fit` was given it, or
        'package.module:factory'. None: config.json says how it is made. What it names there must
        have been imported or registered: no file decides which code runs.

    Returns:
      (logits_fn, features_fn, config).

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged, the two are not from one run, the weights do not fit the
        network, or `module` is needed.

    Guarantees:
      Weights that were saved with another config.json are refused, and so is a config.json that
      has changed since; runs of versions that did not record this still load.

    >>> logits_fn, features_fn, config = rj.models.load("runs/trades")  # doctest: +SKIP
    >>> x_adv = rj.attacks.perturb(attack, logits_fn, key, images, labels)  # doctest: +SKIP
    """
    path = Path(run_dir) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run_dir} is not a run directory: it has no {path.name}")
    config = read_json(path, CONFIG)
    if "eps" not in config["threat"]["fields"] and "." not in config["threat"]["type"]:
        raise ValueError(f"{path} was not written by robustjax: its threat has no eps")
    try:
        about = config["model"] if dtype is None else config["model"] | {"dtype": dtype}
        model, shape = _network(path, about, module), tuple(config["image_shape"])
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"image_shape must be (H, W, C), got {shape}")
        expected = jax.eval_shape(lambda key: init(model, key, shape), jax.random.key(0))
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} does not describe a model: {error}") from error
    path = Path(run_dir) / {"best": "weights.npz", "last": "weights_last.npz"}[weights]
    variables = load_weights(path, config)
    source, advice = "the model of config.json", "put the two files of one run together"
    if module is not None:
        source, advice = "the module", "bring the one that the run was trained with"
    _check_shapes(path, variables, expected, source, advice)
    return *apply(model, jax.tree.map(jnp.asarray, variables)), config


@checked
def transplant(run_dir: str | os.PathLike[str], variables: dict[str, Any]) -> dict[str, Any]:
    """Replace variables by another run's best weights and statistics, except those of the heads.

    Args:
      run_dir: the run directory that `robustjax train` wrote.
      variables: {'params': ..., ...} of a new model, which keeps its head or heads.

    Raises:
      FileNotFoundError, ValueError: see `load_weights`.
      ValueError: the run's stem and body differ from this model's.

    >>> import tempfile
    >>> old = {"params": {"body": {"bias": jnp.ones(2)}, "head": {"bias": jnp.ones(10)}}}
    >>> new = {"params": {"body": {"bias": jnp.zeros(2)}, "head": {"bias": jnp.zeros(3)}}}
    >>> with tempfile.TemporaryDirectory() as run:
    ...     rj.models.save_weights(f"{run}/weights.npz", old)
    ...     jax.tree.map(lambda a: a.tolist(), rj.models.transplant(run, new))
    {'params': {'body': {'bias': [1.0, 1.0]}, 'head': {'bias': [0.0, 0.0, 0.0]}}}
    """
    path = Path(run_dir) / "weights.npz"
    theirs, ours = _headless(load_weights(path)), _headless(variables)
    _check_shapes(path, theirs, ours, "the model that is to start from it", "name the model alike")
    return unflatten(flatten(variables) | jax.tree.map(jnp.asarray, theirs))


def _network(path: Path, about: Mapping[str, Any], module: Any) -> Network:
    """The network that a config's `about` describes, or that somebody brings."""
    settings = dict(about)
    brought, name = settings.pop("brought", False), str(settings.get("name"))
    if module is None:
        package, colon, _ = name.partition(":")
        if brought or (colon and package not in sys.modules):
            wayout = "" if brought else f"import {package} first, or "
            raise ValueError(
                f"{path} is of a network of your own, {name}: {wayout}load it with module=..., the "
                "module itself or 'package.module:factory' (--model on the command line)"
            )
        return network(settings, settings.pop("num_classes", None))
    if isinstance(module, str):
        return network(settings | {"name": module}, settings.pop("num_classes", None))
    return adapt(module, settings.get("mean"), settings.get("std"))


def _headless(variables: Any) -> dict[str, Any]:
    """The arrays of the stem and the body by name: 'params/body/.../kernel'."""
    return {
        name: a
        for name, a in flatten(variables).items()
        if name.split("/")[1] not in ("head", "auxiliary")
    }


def _check_shapes(path: Path, found: Any, wanted: Any, model: str, advice: str) -> None:
    """Raise ValueError unless two trees of variables have the same names, shapes and types."""
    found, wanted = shapes(found), shapes(wanted)
    wrong = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
    if wrong:
        name, absent = wrong[0], "missing"
        raise ValueError(
            f"{path} does not fit {model}: {name} is {found.get(name, absent)} in the file and "
            f"{wanted.get(name, absent)} in the model ({len(wrong)} differ); {advice}"
        )
