"""Cells of tables: shares, radii, and columns that are aligned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustjax.checks import check_number, checked
from robustjax.files import check_content


@checked(host=True)
def format_eps(eps: float | str | Mapping[str, Any]) -> str:
    """A small multiple of 1/255 as a fraction, any other radius with three digits.

    An array, as `config.encode` writes it, by its shape.

    >>> rj.report.format_eps(8 / 255), rj.report.format_eps(0.3)
    ('8/255', '0.3')
    """
    if isinstance(eps, Mapping):
        check_content("eps", eps, {"shape": list})
    if not isinstance(eps, float | int):
        return f"of shape {tuple(eps['shape'])}" if isinstance(eps, Mapping) else str(eps)
    check_number("eps", eps)
    if not eps < 0.2:  # inf too
        return f"{eps:.3g}"
    levels = eps * 255
    whole = round(levels)
    return f"{whole}/255" if whole and abs(levels - whole) < 1e-3 else f"{eps:.3g}"


def percent(value: float | None, error: float | None = None) -> str:
    """A share in per cent, with its error if there is one.

    >>> percent(0.8125), percent(0.5, 0.015), percent(None)
    ('81.2', '50.0 ± 1.5', '-')
    """
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" ± {100 * error:.1f}" if error is not None else "")


def align(cells: Sequence[Sequence[str]], numbers_from: int, markdown: bool) -> str:
    """Aligned columns under a header, flush right from column `numbers_from` on.

    >>> print(align([["attack", "accuracy"], ["pgd-10", "50.0"]], numbers_from=1, markdown=True))
    | attack | accuracy |
    | ------ | -------: |
    | pgd-10 |     50.0 |
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if not markdown and numbers_from >= len(widths):  # the last column may be long text
        widths[-1] = len(cells[0][-1])

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if i >= numbers_from else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    colon = ":" if markdown else "-"
    rule = ["-" * (w - 1) + (colon if i >= numbers_from else "-") for i, w in enumerate(widths)]
    return "\n".join(map(line, [cells[0], rule, *cells[1:]]))
