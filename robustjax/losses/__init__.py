"""Losses for one example. `__all__` lists those of the form loss(output, target) by name."""

from robustjax.losses.margin import dlr, margin, targeted_dlr
from robustjax.losses.softmax import cross_entropy, kl, squared_error
from robustjax.losses.softmax import smooth as smooth

__all__ = ["cross_entropy", "dlr", "kl", "margin", "squared_error", "targeted_dlr"]
