"""Checks of what `perturb`, `evaluate` and `curve` are given."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from robustjax import keys, parallel
from robustjax.attacks._core.success import Success
from robustjax.attacks._engine.examples import Examples, check_examples, check_on_host
from robustjax.attacks._engine.model import check_model, num_classes
from robustjax.threats import Linf
from robustjax.threats._trees import map_threats, threats_of


def check_request(
    logits_fn: Callable,
    key: jax.Array,
    images: Any,
    labels: Any,
    indices: Any,
    batch_size: int | None,
    targets: Any = None,
    attacks: Any = None,
    success: Success | None = None,
) -> tuple[jax.tree_util.Partial, jax.Array, Examples, int | None]:
    """Check what `perturb`, `evaluate` and `curve` share -> (model, key, examples, batch_size).

    `attacks` is one attack or a list of them: their threats say where the pixels may lie.
    `success` says whether labels are classes (None, `fooled`) or whatever it reads.

    Raises:
      ValueError: called while JAX traces, not a PRNG key, batch_size < 1, or as `check_examples`
        and `check_model`.
    """
    check_on_host((logits_fn, key, images, labels, indices, targets))
    key = keys.threefry(key)
    whole = batch_size is None or isinstance(batch_size, int | np.integer)
    if not whole or (batch_size is not None and batch_size < 1):
        raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}")
    examples = check_examples(images, labels, indices, targets, attacks, success)
    model = check_model(logits_fn, examples, success)
    same = {"images": examples.image, "labels": examples.label, "targets": examples.target}
    same |= {"indices": examples.index, "weights": model, "keys": key}
    same |= {"attacks": (attacks, _printed(jax.tree.structure(attacks)))}
    same |= {"functions `success`": _printed(success)}
    parallel.check_same(same)
    return model, key, examples, batch_size


def _printed(what: Any) -> str:
    """What Python prints of it, without addresses, which processes do not share."""
    return re.sub("0x[0-9a-f]+", "", str(what))


def check_surrogate(
    surrogate: Callable | None, model: Callable, examples: Examples, success: Success
) -> jax.tree_util.Partial | None:
    """Check the model that attacks see in place of the one that judges; None if there is none.

    Raises:
      ValueError: as `check_model`, or it has other classes than the model.
    """
    parallel.check_same({"surrogates": np.asarray(surrogate is None)})
    if surrogate is None:
        return None
    try:
        checked = check_model(surrogate, examples, success)
    except ValueError as error:
        raise ValueError(f"surrogate: {error}") from error
    ours, theirs = num_classes(model, examples), num_classes(checked, examples)
    if ours != theirs:
        raise ValueError(
            f"the surrogate has {theirs} classes and the model {ours}: let it return the logits of "
            "the model's classes, in their order"
        )
    parallel.check_same({"surrogates": checked})
    return checked


def check_attack(attack: Any) -> None:
    """Raise ValueError unless `attack` looks like one; JAX would say less, and much later."""
    name = type(attack).__name__
    if isinstance(attack, type) or not callable(attack):
        raise ValueError(f"an attack is an object such as PGD(Linf(8 / 255)), got {attack!r}")
    threats_of(attack)
    strange = [leaf for leaf in jax.tree.leaves(attack) if not isinstance(leaf, ArrayLike)]
    if strange:
        raise ValueError(
            "an attack of your own is a class with @robustjax.config.config, or a function inside "
            f"jax.tree_util.Partial(function); got {name} with {strange[0]!r}"
        )
    if not hasattr(threat := getattr(attack, "threat", Linf()), "project"):
        raise ValueError(f"{name} needs a threat such as Linf(8 / 255), got {threat!r}")
    map_threats(lambda threat: threat, attack)  # looks at each
    if not callable(loss := getattr(attack, "loss", check_attack)):
        raise ValueError(f"{name} needs a loss such as robustjax.losses.dlr, got {loss!r}")
