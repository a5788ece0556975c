"""Arguments at the boundary: what their ranges and types ask, in messages that name them."""

from robustjax.checks.kinds import of_type
from robustjax.checks.values import (
    Check,
    check_choice,
    check_finite,
    check_kind,
    check_number,
    check_seed,
    check_text,
    is_real,
    near,
    shown,
)

__all__ = [
    "Check",
    "check_choice",
    "check_finite",
    "check_kind",
    "check_number",
    "check_seed",
    "check_text",
    "is_real",
    "near",
    "of_type",
    "shown",
]
