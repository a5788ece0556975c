"""Which detector detects which attack, as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SHOWN = ("confidence", "non-me", "k-density")
"""The paper's metrics, those of the printed table; the JSON has all of them."""


def percent(value: float | None) -> str:
    """An AUC or a fraction x 100; a dash where nothing was counted."""
    return "-" if value is None else f"{100 * value:.1f}"


def table(head: Iterable[str], rows: Mapping[str, Iterable[str]]) -> str:
    """Markdown: a title and cells a row."""
    head = list(head)
    lines = ["| | " + " | ".join(head) + " |", "| --- " + "| ---: " * len(head) + "|"]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join(lines)


def aucs(found: Mapping[str, Mapping[str, Any]], on: Mapping[str, str]) -> str:
    """AUC x 100 of the paper's metrics, attack by attack.

    Args:
      found: source net -> attack -> {'on': {watching net: `judge`'s row}}.
      on: the source net -> the net whose detectors watch; the same one, or for a black-box table
        the other.
    """
    head = [f"{on[s]} {part}" for s in found for part in ("accuracy", "pairs", *SHOWN)]
    names = dict.fromkeys(name for attacks in found.values() for name in attacks)
    rows = {name: [] for name in names}
    for source, attacks in found.items():
        for name in names:
            row = attacks.get(name, {}).get("on", {}).get(on[source], {})
            cells = [percent(row.get("accuracy")), str(row.get("pairs", "-"))]
            rows[name] += cells + [percent(row.get(metric, {}).get("auc")) for metric in SHOWN]
    return table(head, rows)


def beside(oblivious: Mapping[str, Any], joint: Mapping[str, Any], radii: Iterable[str]) -> str:
    """AUC x 100 and accepted-and-wrong in percent, of BIM and of the attack on each detector.

    Args:
      oblivious, joint: net -> attack -> {'on': ...}; a joint attack is called DETECTOR@EPS.
      radii: eps.
    """
    parts = ("auc", "accepted_wrong")
    head = [
        f"{name} {what}@{eps} {part.replace('_', ' ')}"
        for eps in radii
        for name in joint
        for what in ("BIM", "joint")
        for part in parts
    ]
    detectors = dict.fromkeys(a.split("@")[0] for attacks in joint.values() for a in attacks)
    rows = {}
    for detector in detectors:
        seen = [
            row["on"][name][detector]
            for eps in radii
            for name in joint
            for row in (oblivious[name][f"BIM@{eps}"], joint[name][f"{detector}@{eps}"])
        ]
        rows[detector] = [percent(numbers[part]) for numbers in seen for part in parts]
    return table(head, rows)
