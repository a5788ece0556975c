"""Training methods, one small module per family; all under the contract of `base.Method`.

This is the list of their classes: `robustjax.training` exports the same, and `catalogue` has a row
for each name of the command line.
"""

from robustjax.training.methods.adanet import AdaNet
from robustjax.training.methods.alp import ALP
from robustjax.training.methods.avmixup import AVmixup
from robustjax.training.methods.awp import AWP, awp_step
from robustjax.training.methods.base import Aux, Batch, Crafted, Gradients, Method
from robustjax.training.methods.cat import CAT
from robustjax.training.methods.center import Center
from robustjax.training.methods.curriculum import Curriculum
from robustjax.training.methods.feature_scattering import FeatureScattering
from robustjax.training.methods.free import Free
from robustjax.training.methods.grad_align import GradAlign
from robustjax.training.methods.gsce import GSCE, LGM, MMC, MMLDA, SCE
from robustjax.training.methods.hat import HAT
from robustjax.training.methods.he import HE
from robustjax.training.methods.lbgat import LBGAT
from robustjax.training.methods.level_sets import LevelSets
from robustjax.training.methods.llr import LLR
from robustjax.training.methods.margin_blend import MarginBlend
from robustjax.training.methods.mart import MART
from robustjax.training.methods.mma import MMA
from robustjax.training.methods.natural import Natural
from robustjax.training.methods.pgd_at import PGDAT
from robustjax.training.methods.rce import RCE
from robustjax.training.methods.rectified_rejection import RectifiedRejection
from robustjax.training.methods.sat import SAT
from robustjax.training.methods.score import SCORE
from robustjax.training.methods.tla import TLA
from robustjax.training.methods.trades import TRADES
from robustjax.training.methods.uat import UAT
from robustjax.training.methods.yopo import YOPO, TradesYOPO

__all__ = [
    "ALP",
    "AWP",
    "CAT",
    "GSCE",
    "HAT",
    "HE",
    "LBGAT",
    "LGM",
    "LLR",
    "MART",
    "MMA",
    "MMC",
    "MMLDA",
    "PGDAT",
    "RCE",
    "SAT",
    "SCE",
    "SCORE",
    "TLA",
    "TRADES",
    "UAT",
    "YOPO",
    "AVmixup",
    "AdaNet",
    "Aux",
    "Batch",
    "Center",
    "Crafted",
    "Curriculum",
    "FeatureScattering",
    "Free",
    "GradAlign",
    "Gradients",
    "LevelSets",
    "MarginBlend",
    "Method",
    "Natural",
    "RectifiedRejection",
    "TradesYOPO",
    "awp_step",
]
