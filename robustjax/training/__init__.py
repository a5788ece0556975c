"""Adversarial training: methods, the per-device step and the host loop."""

from robustjax.training.loop import Result, Terminated, fit, threat_of, with_threat
from robustjax.training.methods import AWP, METHODS, PGDAT, SAT, TRADES, Free, Method, Natural
from robustjax.training.optimizers import Optimizer
from robustjax.training.schedules import SCHEDULES
from robustjax.training.state import TrainState
from robustjax.training.step import Recipe

__all__ = [
    "AWP",
    "METHODS",
    "PGDAT",
    "SAT",
    "SCHEDULES",
    "TRADES",
    "Free",
    "Method",
    "Natural",
    "Optimizer",
    "Recipe",
    "Result",
    "Terminated",
    "TrainState",
    "fit",
    "threat_of",
    "with_threat",
]
