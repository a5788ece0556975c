"""Training methods, one small module per family; all under the contract of `base.Method`."""

from robustjax.attacks import PGD, Gaussian, Misclassified, Stationary, Unclipped, Uniform
from robustjax.training.methods.alp import ALP
from robustjax.training.methods.avmixup import AVmixup
from robustjax.training.methods.awp import AWP
from robustjax.training.methods.base import Aux, Batch, Crafted, Gradients, Method
from robustjax.training.methods.cat import CAT
from robustjax.training.methods.center import Center
from robustjax.training.methods.curriculum import Curriculum
from robustjax.training.methods.feature_scattering import FeatureScattering
from robustjax.training.methods.free import Free
from robustjax.training.methods.grad_align import GradAlign
from robustjax.training.methods.gsce import GSCE, LGM, MMC, MMLDA, SCE
from robustjax.training.methods.he import HE
from robustjax.training.methods.llr import LLR
from robustjax.training.methods.mart import MART
from robustjax.training.methods.mma import MMA
from robustjax.training.methods.natural import Natural
from robustjax.training.methods.pgd_at import PGDAT
from robustjax.training.methods.rce import RCE
from robustjax.training.methods.sat import SAT
from robustjax.training.methods.score import SCORE
from robustjax.training.methods.trades import TRADES
from robustjax.training.methods.uat import UAT
from robustjax.training.methods.yopo import YOPO, TradesYOPO

METHODS = {
    "natural": Natural(),
    "pgd-at": PGDAT(),
    "trades": TRADES(),
    "fast-at": PGDAT(PGD(steps=1, rel_step=1.25), "commit", guard=0.2),
    "n-fgsm": PGDAT(PGD(steps=1, rel_step=1.0, start=Uniform(2.0), rule=Unclipped()), "commit"),
    "grad-align": GradAlign(),
    "curriculum": Curriculum(),
    "dynamic-at": PGDAT(PGD(stop=Stationary())),
    "fat": PGDAT(PGD(stop=Misclassified(later=(50 / 120, 90 / 120)))),
    "fat-trades": TRADES(
        attack=PGD(start=Gaussian(), stop=Misclassified(later=(30 / 85, 50 / 85, 70 / 85)))
    ),
    "fat-mart": MART(
        PGD(start=Gaussian(), stop=Misclassified(later=(20 / 90, 40 / 90, 60 / 90, 80 / 90)))
    ),
    "mart": MART(),
    "alp": ALP(),
    "mixture": ALP(weight=0.0),
    "score": SCORE(),
    "uat-ot": UAT(),
    "avmixup": AVmixup(),
    "llr": LLR(),
    "sat": SAT(),
    "free": Free(),
    "pgd-at-he": HE(PGDAT(PGD(start=Gaussian())), scale=10.0),
    "trades-he": HE(TRADES()),
    "alp-he": HE(ALP(weight=0.5 / 20**2), scale=20.0, margin=0.3),  # of the cosines, unscaled
    "mma": MMA(),
    "cat": CAT(),
    "feature-scattering": FeatureScattering(),
    "yopo": YOPO(),
    "trades-yopo": TradesYOPO(),
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
    "CAT",
    "GSCE",
    "HE",
    "LGM",
    "LLR",
    "MART",
    "METHODS",
    "MMA",
    "MMC",
    "MMLDA",
    "PGDAT",
    "RCE",
    "SAT",
    "SCE",
    "SCORE",
    "TRADES",
    "UAT",
    "YOPO",
    "AVmixup",
    "Aux",
    "Batch",
    "Center",
    "Crafted",
    "Curriculum",
    "FeatureScattering",
    "Free",
    "GradAlign",
    "Gradients",
    "Method",
    "Natural",
    "TradesYOPO",
]
