"""What flags mean: numbers, configs by name, and the threat of --threat and --eps."""

from __future__ import annotations

import collections.abc
from typing import Literal, get_origin

from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from robustjax import config, data, spec
from robustjax.threats import NORMS, Threats
from robustjax.typing import Loss, Threat

Norm = Literal["linf", "l2", "l1", "l0"]
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
def named_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A loss, a schedule, a start, a step or a stop rule is chosen as `robustjax.spec` reads it."""
    a_function = get_origin(info.type) is collections.abc.Callable
    kind = Loss if a_function else info.type
    names = next((names for known, names in spec.KINDS.items() if known == kind), None)
    if names is None:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(names) + "}[:FIELD=VALUE]",
        instance_from_str=lambda words: spec.parse(words[0], names),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [spec.write(value, names)],
    )


@REGISTRY.struct_rule
def threat_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Threats inside a method have no flags of their own: --threat and --eps set them all."""
    if info.type not in (Threat, data.Augment, *NORMS.values()):
        return None
    return StructConstructorSpec(instantiate=lambda: info.default, fields=())
