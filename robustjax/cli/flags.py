"""What flags mean: fractions, losses and configs by name, and the threat of --threat and --eps."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import operator
from typing import Any, Literal, get_origin

from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from robustjax import attacks, config, data, losses
from robustjax.threats import NORMS, Threats
from robustjax.training import SCHEDULES
from robustjax.typing import Threat

Norm = Literal["linf", "l2", "l1", "l0"]
FUNCTIONS = {name: getattr(losses, name) for name in losses.__all__}
STARTS = {
    "zero": attacks.starts.Zero(),
    "uniform": attacks.starts.Uniform(),
    "gaussian": attacks.starts.Gaussian(),
    "corner": attacks.starts.Corner(),
    "odi": attacks.starts.OutputDiversified(),
}
RULES = {
    "steepest": attacks.steps.Steepest(),
    "momentum": attacks.steps.Momentum(),
    "nesterov": attacks.steps.Nesterov(),
    "adam": attacks.steps.Adam(),
    "unclipped": attacks.steps.Unclipped(),
}
STOPS = {
    "never": attacks.stops.Never(),
    "after": attacks.stops.After(),
    "misclassified": attacks.stops.Misclassified(),
    "stationary": attacks.stops.Stationary(),
}
VARIANTS = {
    functools.reduce(operator.or_, map(type, SCHEDULES.values())): SCHEDULES,
    attacks.starts.Start: STARTS,
    attacks.steps.Rule: RULES,
    attacks.stops.Stop: STOPS,
}
"""The type of a field -> the configs it may hold, by name."""
REGISTRY = ConstructorRegistry()


def choose_threat(norm: Norm | None, eps: float | None, default: Threats) -> Threats:
    """The threat of the flags --threat and --eps, each falling back on `default`.

    Raises:
      ValueError: the threat's own, of its eps.
    """
    same = norm is None or NORMS[norm] is type(default)
    threat = default if same else NORMS[norm]()
    return threat if eps is None else type(threat)(eps)


@REGISTRY.primitive_rule
def number_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A float may be a fraction."""
    if info.type is not float:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="NUMBER",
        instance_from_str=lambda words: config.parse_number(words[0]),
        is_instance=lambda value: isinstance(value, int | float),
        str_from_instance=lambda value: [config.format_number(value)],
    )


@REGISTRY.primitive_rule
def function_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A loss is chosen by its name."""
    if get_origin(info.type) is not collections.abc.Callable:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(FUNCTIONS) + "}",
        instance_from_str=lambda words: FUNCTIONS[words[0]],
        is_instance=lambda value: value in FUNCTIONS.values(),
        str_from_instance=lambda value: [value.__name__],
        choices=tuple(FUNCTIONS),
    )


@REGISTRY.primitive_rule
def variant_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A schedule, a start, a step or a stop rule is chosen by its name: `read_variant`."""
    if info.type not in VARIANTS:
        return None
    table = VARIANTS[info.type]
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(table) + "}[:FIELD=NUMBER]",
        instance_from_str=lambda words: read_variant(words[0], table),
        is_instance=lambda value: isinstance(value, tuple(map(type, table.values()))),
        str_from_instance=lambda value: [write_variant(value, table)],
    )


def read_variant(text: str, table: dict[str, Any]) -> Any:
    """A config by its name, with other numbers where they are given.

    'one-cycle' is the one in `table`, 'gaussian:sigma=1/100' another, and a field of several
    numbers is 'piecewise:boundaries=1/2,3/4:factor=0.2'. A dot leads into a field that is a config
    itself: 'reconstruction:autoencoder.epochs=20'.

    Raises:
      ValueError: an unknown name or field, or no number.
    """
    name, *settings = text.split(":")
    if name not in table:
        raise ValueError(f"unknown name {name!r}; choose one of {', '.join(table)}")
    return _changed(name, table[name], [setting.partition("=")[::2] for setting in settings])


def _changed(name: str, default: Any, settings: list[tuple[str, str]]) -> Any:
    """The config with these numbers in these fields, all at once: they may depend on each other."""
    known = (
        [f.name for f in dataclasses.fields(default)] if dataclasses.is_dataclass(default) else []
    )
    changes, inside = {}, collections.defaultdict(list)
    for path, value in settings:
        field, _, rest = path.partition(".")
        if field not in known:
            raise ValueError(f"{name} has no field {field!r}; fields: {', '.join(known) or 'none'}")
        if rest:
            inside[field].append((rest, value))
        else:
            kind, numbers = (
                type(getattr(default, field)),
                map(config.parse_number, value.split(",")),
            )
            changes[field] = tuple(numbers) if kind is tuple else _cast(kind, *numbers)
    for field, deeper in inside.items():
        changes[field] = _changed(f"{name}.{field}", getattr(default, field), deeper)
    return dataclasses.replace(default, **changes)


def _cast(kind: type, value: float) -> Any:
    """The number as the field's type; a fraction for a count is left, and the config refuses it."""
    if kind is bool and value not in (0, 1):
        raise ValueError(f"a switch is 0 or 1, not {value:g}")
    return kind(value) if kind in (int, bool) and value == int(value) else value


def write_variant(value: Any, table: dict[str, Any]) -> str:
    """The inverse of `read_variant`, by the name that leaves the fewest fields to be written."""

    def others(name):
        default = table[name]
        return [
            field.name
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != getattr(default, field.name)
        ]

    same = [name for name, default in table.items() if type(default) is type(value)]
    name = min(same, key=lambda name: len(others(name)))
    words = [name]
    for field in others(name):
        numbers = getattr(value, field)
        numbers = numbers if isinstance(numbers, tuple) else (numbers,)
        words.append(f"{field}={','.join(map(config.format_number, numbers))}")
    return ":".join(words)


@REGISTRY.struct_rule
def threat_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Threats inside a method have no flags of their own: --threat and --eps set them all."""
    if info.type not in (Threat, data.Augment, *NORMS.values()):
        return None
    return StructConstructorSpec(instantiate=lambda: info.default, fields=())
