"""Robust evaluation: accuracy under each attack and under all of them, and what to distrust."""

from robustjax.evaluation.report import Report
from robustjax.evaluation.run import curve, evaluate

__all__ = ["Report", "curve", "evaluate"]
