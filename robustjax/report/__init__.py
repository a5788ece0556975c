"""Results for people to read: figures, a table of several runs, and the provenance of numbers."""

from robustjax.files import read_metrics, write_json
from robustjax.report.averages import average, average_table
from robustjax.report.cells import format_eps
from robustjax.report.exports import csv_table, latex_table, per_example
from robustjax.report.figures import (
    accuracy_over_eps,
    class_grid,
    example_grid,
    figure,
    roc_curves,
    training_curves,
)
from robustjax.report.provenance import command_line, provenance
from robustjax.report.rendering import html_page, model_card
from robustjax.report.runs import read_run, run_rows
from robustjax.report.tables import (
    calls_an_image,
    detection_table,
    rows_table,
    stage_table,
    table,
    transfer_table,
)

__all__ = [
    "accuracy_over_eps",
    "average",
    "average_table",
    "calls_an_image",
    "class_grid",
    "command_line",
    "csv_table",
    "detection_table",
    "example_grid",
    "figure",
    "format_eps",
    "html_page",
    "latex_table",
    "model_card",
    "per_example",
    "provenance",
    "read_metrics",
    "read_run",
    "roc_curves",
    "rows_table",
    "run_rows",
    "stage_table",
    "table",
    "training_curves",
    "transfer_table",
    "write_json",
]
