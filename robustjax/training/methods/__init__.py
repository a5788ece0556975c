"""Training methods, one small module per family; all under the contract of `base.Method`."""

from robustjax.training.methods.awp import AWP
from robustjax.training.methods.base import Aux, Batch, Crafted, Gradients, Method
from robustjax.training.methods.free import Free
from robustjax.training.methods.natural import Natural
from robustjax.training.methods.pgd_at import PGDAT
from robustjax.training.methods.sat import SAT
from robustjax.training.methods.trades import TRADES

METHODS = {
    "natural": Natural(),
    "pgd-at": PGDAT(),
    "trades": TRADES(),
    "sat": SAT(),
    "free": Free(),
}
"""The methods by the names that the command line uses, with their defaults."""

__all__ = [
    "AWP",
    "METHODS",
    "PGDAT",
    "SAT",
    "TRADES",
    "Aux",
    "Batch",
    "Crafted",
    "Free",
    "Gradients",
    "Method",
    "Natural",
]
