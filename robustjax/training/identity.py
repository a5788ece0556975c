"""What makes a run this run and no other: its settings and data, as config.json records them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from robustjax import config, data, files, models
from robustjax.training.methods.base import Method
from robustjax.training.methods.threat import threat_of
from robustjax.training.recipes import Recipe
from robustjax.training.state import TrainState
from robustjax.typing import Attack, Threat


def identity(
    method: Method,
    train: data.Dataset,
    validation: data.Dataset,
    *,
    model: Mapping[str, Any] | Any,
    module: models.Network,
    state: TrainState,
    recipe: Recipe,
    seed: int,
    extra: data.Dataset | None,
    init_from: str | Path | None,
    threat: Threat | None,
    validation_attack: Attack | None,
) -> dict[str, Any]:
    """What a run and those that resume it have in common, in plain JSON.

    Args:
      method, train, validation, recipe, seed, extra, init_from, threat, validation_attack: see
        `fit`.
      model: as `required_model` returns it.
      module: the network that this makes.
      state: a new one.
    """
    found = {
        "model": model_record(model, module, train.num_classes),
        "image_shape": train.image_shape,
        "method": config.encode(method),
        "recipe": config.encode(recipe),
        "data": about(train)
        | {"validation": len(validation), "validation_sha256": validation.digest},
        "extra": None if extra is None else about(extra),
        "init_from": None if init_from is None else str(init_from),
        "seed": seed,
        "threat": config.encode(threat_of(method) if threat is None else threat),
        "validation_attack": config.encode(validation_attack),
        "class_names": train.class_names or [str(k) for k in range(train.num_classes)],
    }
    if isinstance(module, models.Foreign):  # its name does not determine its weights
        found["variables"] = models.shapes({"params": state.params, **state.stats})
    if jax.tree.leaves(state.slot):
        found["devices"] = jax.device_count()  # the slot is spread over them
    return files.from_json(files.to_json(found))


def about(examples: data.Dataset) -> dict[str, Any]:
    """The record of a data set in a run's identity."""
    return {"name": examples.name, "size": len(examples), "content_sha256": examples.digest}


def required_model(model: Mapping[str, Any] | str | Any, method: Method) -> dict[str, Any] | Any:
    """The model's arguments together with those that the method requires.

    Raises:
      ValueError: they contradict each other, or the model is an object, which takes no arguments.
    """
    model = {"name": model} if isinstance(model, str) else model
    if not isinstance(model, Mapping):
        if method.model:
            asked = ", ".join(f"{name} {value!r}" for name, value in method.model.items())
            raise ValueError(
                f"{type(method).__name__} needs a model with {asked}, which cannot be set on a "
                "network passed as an object: name one of robustjax.models.names(), or a factory "
                "of your own that takes these settings"
            )
        return model
    for name, value in method.model.items():
        if model.get(name, value) != value:
            raise ValueError(
                f"{type(method).__name__} needs a model with {name} {value!r}, not "
                f"{model[name]!r}: leave {name} out, the method sets it"
            )
    return {**model, **method.model}


def model_record(model: dict[str, Any] | Any, module: models.Network, num_classes: int) -> Any:
    """What config.json needs to rebuild the network."""
    if isinstance(model, Mapping):
        return {**model, "num_classes": num_classes}
    return models.describe(module, num_classes)
