"""Robust evaluation: accuracy under each attack and under all of them, and what to distrust."""

from robustjax.evaluation.blind import zero_gradient
from robustjax.evaluation.curve import check_curve, curve
from robustjax.evaluation.detection import DetectionReport, detect
from robustjax.evaluation.draws import wilson
from robustjax.evaluation.journal import Journal
from robustjax.evaluation.record import Record
from robustjax.evaluation.report import Report
from robustjax.evaluation.run import evaluate
from robustjax.evaluation.transfer import Transfer, transfer

__all__ = [
    "DetectionReport",
    "Journal",
    "Record",
    "Report",
    "Transfer",
    "check_curve",
    "curve",
    "detect",
    "evaluate",
    "transfer",
    "wilson",
    "zero_gradient",
]
