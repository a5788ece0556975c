"""`robustjax methods`."""

from __future__ import annotations

from robustjax.report.tables import align
from robustjax.training import CATALOGUE


def methods(markdown: bool = False) -> None:
    """List what `train` knows: name, paper, group, state carried and cost of a training step.

    FB is a forward and a backward pass over the batch, F a forward pass alone, at the defaults.

    Args:
      markdown: print it as Markdown.
    """
    rows = [("method", "paper", "group", "state", "cost")]
    rows += [(name, e.paper, e.group, e.state, e.cost) for name, e in CATALOGUE.items()]
    print(align(rows, len(rows[0]), markdown))
