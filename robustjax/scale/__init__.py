"""Training and evaluation at scale: what they take is known before a device is paid for."""

from robustjax.scale.chips import CHIPS, Chip, chip_of
from robustjax.scale.forecast import Choice, Forecast, plan
from robustjax.scale.page import page, verdict
from robustjax.scale.program import Collective, Memory, Program
from robustjax.scale.roofline import Roofline
from robustjax.scale.topology import Slice, slice_of

__all__ = [
    "CHIPS",
    "Chip",
    "Choice",
    "Collective",
    "Forecast",
    "Memory",
    "Program",
    "Roofline",
    "Slice",
    "chip_of",
    "page",
    "plan",
    "slice_of",
    "verdict",
]
