"""Threat models: the only place that depends on a norm.

A threat defines the allowed changes to one image x (H, W, C): the ball {z : norm(z - x) <= eps},
the bounds of the pixels (by default [0, 1]) and a mask of the entries that may change. For a threat
of your own see `robustjax.typing.Threat`.
"""

from robustjax.threats._ball import Ball, Bounds
from robustjax.threats._norms import L0, L1, L2, THREATS, Linf
from robustjax.threats._trees import box_of, radius, with_radius
from robustjax.threats.entries import per_entry

__all__ = [
    "L0",
    "L1",
    "L2",
    "THREATS",
    "Ball",
    "Bounds",
    "Linf",
    "box_of",
    "per_entry",
    "radius",
    "with_radius",
]
