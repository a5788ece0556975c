"""The warnings of evaluated runs, each once, with the runs and attacks that it concerns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

SHARE = re.compile(r"\d+(?:\.\d+)?(?=\s?%)")
"""A number in per cent: warnings that differ in it alone are one."""


def merged(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each warning of the rows: 'RUN: ATTACK, ATTACK; RUN: ATTACK: text'.

    Where only shares differ, the line has the smallest and the largest.

    Args:
      rows: of `run_rows`.

    >>> said = ["fgsm: blind on 8.5% of them", "pgd-20: blind on 3% of them", "one class"]
    >>> merged([{"run": "a", "report": {"robust": {"fgsm": 0, "pgd-20": 0}, "warnings": said}}])
    ['a: fgsm, pgd-20: blind on 3 to 8.5% of them', 'a: one class']
    """
    found: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows:
        for text in row["report"]["warnings"]:
            attack, colon, rest = text.partition(": ")
            if not colon or attack not in row["report"]["robust"]:
                attack, rest = "", text
            found.setdefault(SHARE.sub("", rest), []).append((row["run"], attack, rest))
    return [f"{_concerned(entries)}: {_ranged(entries)}" for entries in found.values()]


def _concerned(entries: Sequence[tuple[str, str, str]]) -> str:
    attacks: dict[str, list[str]] = {}
    for run, attack, _ in entries:
        attacks.setdefault(run, []).extend([attack] * bool(attack))
    return "; ".join(f"{run}: {', '.join(of)}" if of else run for run, of in attacks.items())


def _ranged(entries: Sequence[tuple[str, str, str]]) -> str:
    columns = zip(*(SHARE.findall(text) for *_, text in entries), strict=True)
    ranges = []
    for column in columns:
        low, high = min(column, key=float), max(column, key=float)
        ranges.append(low if low == high else f"{low} to {high}")
    return SHARE.sub(lambda _: ranges.pop(0), entries[0][2])
