"""Training and evaluation at scale: what they take is known before a device is paid for."""

from robustjax.scale.chips import CHIPS, chip_of
from robustjax.scale.forecast import plan
from robustjax.scale.page import page
from robustjax.scale.topology import slice_of

__all__ = ["CHIPS", "chip_of", "page", "plan", "slice_of"]
