"""Training methods, one small module per family; all under the contract of `base.Method`."""

from robustjax.training.methods.alp import ALP
from robustjax.training.methods.avmixup import AVmixup
from robustjax.training.methods.awp import AWP
from robustjax.training.methods.base import Aux, Batch, Crafted, Gradients, Method
from robustjax.training.methods.center import Center
from robustjax.training.methods.free import Free
from robustjax.training.methods.gsce import GSCE, LGM, MMC, MMLDA, SCE
from robustjax.training.methods.llr import LLR
from robustjax.training.methods.mart import MART
from robustjax.training.methods.natural import Natural
from robustjax.training.methods.pgd_at import PGDAT
from robustjax.training.methods.rce import RCE
from robustjax.training.methods.sat import SAT
from robustjax.training.methods.score import SCORE
from robustjax.training.methods.trades import TRADES
from robustjax.training.methods.uat import UAT

METHODS = {
    "natural": Natural(),
    "pgd-at": PGDAT(),
    "trades": TRADES(),
    "mart": MART(),
    "alp": ALP(),
    "mixture": ALP(weight=0.0),
    "score": SCORE(),
    "uat-ot": UAT(),
    "avmixup": AVmixup(),
    "llr": LLR(),
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
    "ALP",
    "AWP",
    "GSCE",
    "LGM",
    "LLR",
    "MART",
    "METHODS",
    "MMC",
    "MMLDA",
    "PGDAT",
    "RCE",
    "SAT",
    "SCE",
    "SCORE",
    "TRADES",
    "UAT",
    "AVmixup",
    "Aux",
    "Batch",
    "Center",
    "Crafted",
    "Free",
    "Gradients",
    "Method",
    "Natural",
]
