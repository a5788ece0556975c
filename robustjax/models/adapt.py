"""An object or an import path -> a network, and back: how a run says what it was trained on."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from flax import linen as nn

from robustjax.checks import INF, checked
from robustjax.files import from_json, to_json
from robustjax.models.adapters.base import Foreign, Network
from robustjax.models.adapters.linen import Linen
from robustjax.models.classifier import Classifier
from robustjax.names import Names

Factory = Callable[..., Any]
"""(num_classes=..., and settings of its own) -> a module, or () -> a module."""

FACTORIES: Names[Factory] = Names("model", {})
"""What `models.register` has been given, by name."""


@checked(mean="C", std="C")
def adapt(
    module: Any, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Network:
    """A module of another library, or of your own, as a network.

    Args:
      module: of Flax, linen or NNX, or of Equinox, alone or as (module, state).
      mean, std: of each image channel, in [0, 1] pixels; the module sees (x - mean) / std.

    Raises:
      TypeError: it is none of these.

    >>> from flax import linen as nn
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, images):
    ...         return nn.Dense(10)(images.reshape(len(images), -1))
    >>> model, key = rj.models.adapt(Net(), mean=(0.5,)), jax.random.key(0)
    >>> rj.models.shapes(jax.eval_shape(lambda key: rj.models.init(model, key, (8, 8, 1)), key))
    {'params/Dense_0/bias': 'float32 (10,)', 'params/Dense_0/kernel': 'float32 (64, 10)'}
    """
    scale = [None if values is None else tuple(values) for values in (mean, std)]
    if isinstance(module, Classifier | Foreign):
        if mean is not None or std is not None:
            raise TypeError("the network has its input normalisation already: leave out mean, std")
        return module
    if isinstance(module, nn.Module):
        return Linen(module, mean=scale[0], std=scale[1])
    if isinstance(module, _modules_of("flax.nnx")):
        adapter = importlib.import_module("robustjax.models.adapters.nnx").NNX
        return adapter(module, mean=scale[0], std=scale[1])
    first = module[0] if isinstance(module, tuple) and module else module
    if isinstance(first, _modules_of("equinox")):
        adapter = importlib.import_module("robustjax.models.adapters.equinox").Equinox
        return adapter(module, mean=scale[0], std=scale[1])
    raise TypeError(
        "a model is a module of Flax (linen or NNX) or Equinox, a name or "
        f"'package.module:factory', got {type(module).__name__}"
    )


def _modules_of(library: str) -> Any:
    """The class of a library's modules; (), which nothing is of, before its users import it."""
    return getattr(sys.modules.get(library), "Module", ())


@checked
def is_own(name: str) -> bool:
    """Whether a name is an import path, or was registered.

    >>> rj.models.is_own("my_package.nets:small"), rj.models.is_own("resnet-18")
    (True, False)
    """
    return ":" in name or name in FACTORIES


def build(
    name: str,
    *,
    num_classes: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **settings: Any,
) -> Network:
    """The network that 'package.module:factory', or a registered name, makes.

    Args:
      name: of the factory.
      num_classes: the factory's, if it takes one.
      mean, std: see `adapt`.
      settings: the factory's; those that are None are left to its defaults.

    Raises:
      ValueError: there is no such factory, or it does not take these settings.
    """
    factory = imported(name) if ":" in name else FACTORIES[name]
    known = inspect.signature(factory).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in known.values())
    given = {key: _tuples(value) for key, value in settings.items() if value is not None}
    if unknown := [key for key in given if not takes_all and key not in known]:
        raise ValueError(f"{name} takes no {unknown[0]}; it takes {', '.join(known) or 'nothing'}")
    if takes_all or "num_classes" in known:
        given["num_classes"] = num_classes
    return adapt(factory(**given), mean, std)


def imported(path: str) -> Callable[..., Any]:
    """What 'package.module:name' stands for.

    Raises:
      ValueError: there is no such module, or nothing in it that can be called by this name.

    >>> rj.models.imported("math:sqrt")(4)
    2.0
    """
    package, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(package)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"there is no {path!r}: {error}; write 'package.module:factory', of a module that "
            "Python finds (PYTHONPATH)"
        ) from error
    if not callable(found):
        raise ValueError(f"{path!r} is no factory: it cannot be called")
    return found


@checked(num_classes=(2, INF))
def describe(network: Network, num_classes: int) -> dict[str, Any]:
    """The entry of config.json for a network that `fit` was given as an object.

    A linen module whose class can be imported, and whose fields are numbers, text and tuples, is
    described by its import path and its fields, from which `build` makes it again. Any other
    network is marked {'brought': True}: whoever loads the run has to pass it.

    >>> from flax import linen as nn
    >>> rj.models.describe(rj.models.adapt(nn.Dense(10)), num_classes=10)
    {'name': 'flax.linen.linear:Dense', 'num_classes': 10, 'features': 10}
    """
    module = network.module if isinstance(network, Foreign) else network
    cls: Any = type(module)
    about = {"name": f"{cls.__module__}:{cls.__qualname__}", "num_classes": num_classes}
    scale = ((n, getattr(network, n)) for n in ("mean", "std")) if module is not network else ()
    about |= {name: value for name, value in scale if value is not None}
    if isinstance(module, nn.Module) and _importable(cls):
        fields = {n: getattr(module, n) for n in cls.__dataclass_fields__}
        plain = {n: f.default for n, f in cls.__dataclass_fields__.items()}
        settings = {n: v for n, v in fields.items() if v is not plain[n] and n not in LINEN}
        settings.pop("num_classes", None)
        try:
            remade = build(**about, **from_json(to_json(settings)))
        except (TypeError, ValueError):  # fields that JSON has no place for
            remade = None
        if remade == network:
            return about | settings
    return about | {"brought": True}


LINEN = ("parent", "name")
"""Fields that every linen module has."""


def _importable(cls: type) -> bool:
    found = sys.modules.get(cls.__module__)
    return cls.__module__ != "__main__" and getattr(found, cls.__qualname__, None) is cls


def _tuples(value: Any) -> Any:
    """The same with tuples for lists: JSON has none, and a module's fields must be hashable."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
