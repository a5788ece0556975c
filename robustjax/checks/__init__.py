"""Arguments at the boundary: what their types, ranges and shapes ask, in messages that name them.

`@checked` reads a function's annotations; what a type cannot say stands beside it:

    @checked(logits="K>1", label="< K", weight=(0, 1))
    def loss(logits: jax.Array, label: jax.Array, weight: float = 0.5) -> jax.Array:

A text describes an array by its axes: "N D" has two, "" none, "K | K D" either, "... D" any number
before the last; a letter is one size wherever it occurs in a call, at least 2 in "K>1", perhaps 0
in "N>-1". "N < K" holds N whole numbers from 0 to K - 1. A pair of numbers is a range.

Tracers have a shape and a type, so a compiled program is checked when it is traced, and costs
nothing when it runs.
"""

from robustjax.checks.axes import check_classes, check_distributions, check_layout
from robustjax.checks.fields import check_fields, hint
from robustjax.checks.function import arguments, checked, in_body
from robustjax.checks.kinds import check_arrays, of_type
from robustjax.checks.values import (
    INF,
    LARGEST,
    Check,
    check_choice,
    check_finite,
    check_image_shape,
    check_key,
    check_kind,
    check_number,
    check_seed,
    check_text,
    is_real,
    near,
    shown,
)

__all__ = [
    "INF",
    "LARGEST",
    "Check",
    "arguments",
    "check_arrays",
    "check_choice",
    "check_classes",
    "check_distributions",
    "check_fields",
    "check_finite",
    "check_image_shape",
    "check_key",
    "check_kind",
    "check_layout",
    "check_number",
    "check_seed",
    "check_text",
    "checked",
    "hint",
    "in_body",
    "is_real",
    "near",
    "of_type",
    "shown",
]
