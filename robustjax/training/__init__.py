"""Adversarial training: methods, the per-device step and the host loop."""

from robustjax.training import methods, schedules
from robustjax.training.cards import Card, card, cards_of
from robustjax.training.catalogue import CATALOGUE, METHODS, Entry, register
from robustjax.training.loggers import CSV, LOGGERS, Logger, TensorBoard, WandB
from robustjax.training.loop import Result, fit
from robustjax.training.methods import *  # noqa: F403
from robustjax.training.methods.threat import threat_of, with_threat
from robustjax.training.net import Net
from robustjax.training.optimizers import Optimizer
from robustjax.training.pseudo_labels import pseudo_label
from robustjax.training.recipes import Recipe
from robustjax.training.schedules import SCHEDULES
from robustjax.training.state import TrainState
from robustjax.training.stopping import Terminated

__all__ = [
    "CATALOGUE",
    "CSV",
    "LOGGERS",
    "METHODS",
    "SCHEDULES",
    "Card",
    "Entry",
    "Logger",
    "Net",
    "Optimizer",
    "Recipe",
    "Result",
    "TensorBoard",
    "Terminated",
    "TrainState",
    "WandB",
    "card",
    "cards_of",
    "fit",
    "methods",
    "pseudo_label",
    "register",
    "schedules",
    "threat_of",
    "with_threat",
]
__all__ += methods.__all__
