"""Training methods, one small module per family; all under the contract of `base.Method`."""

from robustjax.training.methods.awp import AWP
from robustjax.training.methods.base import Aux, Batch, Crafted, Gradients, Method
from robustjax.training.methods.center import Center
from robustjax.training.methods.free import Free
from robustjax.training.methods.gsce import GSCE, LGM, MMC, MMLDA, SCE
from robustjax.training.methods.natural import Natural
from robustjax.training.methods.pgd_at import PGDAT
from robustjax.training.methods.rce import RCE
from robustjax.training.methods.sat import SAT
from robustjax.training.methods.trades import TRADES

METHODS = {
    "natural": Natural(),
    "pgd-at": PGDAT(),
    "trades": TRADES(),
    "sat": SAT(),
    "free": Free(),
    "sce": SCE(),
    "mmlda": MMLDA(),
    "mmc": MMC(),
    "lgm": LGM(),
    "center": Center(),
    "gsce": GSCE(),
    "rce": RCE(),
}
"""The methods by the names that the command line uses, with their defaults."""

__all__ = [
    "AWP",
    "GSCE",
    "LGM",
    "METHODS",
    "MMC",
    "MMLDA",
    "PGDAT",
    "RCE",
    "SAT",
    "SCE",
    "TRADES",
    "Aux",
    "Batch",
    "Center",
    "Crafted",
    "Free",
    "Gradients",
    "Method",
    "Natural",
]
