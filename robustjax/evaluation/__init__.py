"""Robust evaluation: accuracy under each attack and under all of them, and what to distrust."""

from robustjax.evaluation.detection import DetectionReport, detect
from robustjax.evaluation.journal import Journal
from robustjax.evaluation.report import Report
from robustjax.evaluation.run import curve, evaluate, zero_gradient
from robustjax.evaluation.transfer import Transfer, transfer

__all__ = [
    "DetectionReport",
    "Journal",
    "Report",
    "Transfer",
    "curve",
    "detect",
    "evaluate",
    "transfer",
    "zero_gradient",
]
