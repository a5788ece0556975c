"""Threat models: a norm lives here and nowhere else.

A threat says what may be done to one image x (H, W, C): the ball {z : norm(z - x) <= eps}, the
bounds of the pixels (by default [0, 1]) and a mask of what may change. For one of your own see
`robustjax.typing.Threat`.
"""

from robustjax.threats._balls import L0, L1, L2, THREATS, Ball, Bounds, Linf
from robustjax.threats._trees import (
    box_of,
    check_norm,
    check_threats,
    map_threats,
    of_example,
    radius,
    scaled,
    threats_of,
    with_radius,
)

__all__ = [
    "L0",
    "L1",
    "L2",
    "THREATS",
    "Ball",
    "Bounds",
    "Linf",
    "box_of",
    "check_norm",
    "check_threats",
    "map_threats",
    "of_example",
    "radius",
    "scaled",
    "threats_of",
    "with_radius",
]
