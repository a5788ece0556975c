"""What a run leaves for people: figures, one table of several runs, and where numbers come from."""

from robustjax.files import read_metrics, write_json
from robustjax.report.figures import accuracy_over_eps, example_grid, figure, training_curves
from robustjax.report.provenance import command_line, provenance
from robustjax.report.tables import format_eps, read_run, stage_table, table, transfer_table

__all__ = [
    "accuracy_over_eps",
    "command_line",
    "example_grid",
    "figure",
    "format_eps",
    "provenance",
    "read_metrics",
    "read_run",
    "stage_table",
    "table",
    "training_curves",
    "transfer_table",
    "write_json",
]
