"""`robustjax attacks`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tyro.conf import Positional

import robustjax as rj
from robustjax.cli.flags import read
from robustjax.report.cells import align


@dataclasses.dataclass(frozen=True)
class AttacksOptions:
    """List the attacks, or the settings of one.

    The table shows each attack's paper, the threats that it supports, the meaning of a number after
    its name (pgd-40 takes 40 steps), and the maximal cost of each unit of that number with ten
    classes: FB is a forward and a backward pass over an image, F a forward pass only. With names,
    the command prints their settings and defaults instead; change them as in
    pgd:start=zero:rel_step=2.

    Args:
      names: attacks whose settings to list; none: a table of all attacks.
      markdown: print the table as Markdown.
    """

    names: Positional[tuple[str, ...]] = ()
    markdown: bool = False


def command(words: Sequence[str]) -> None:
    """`robustjax attacks` with these words."""
    options = read(AttacksOptions, "attacks", words)
    for name in options.names:
        print(settings_of(name))
    if not options.names:
        rows = [("attack", "paper", "threats", "number", "cost")]
        rows += [
            (n, r.paper, known(r.threats), r.budget or "-", r.cost)
            for n, r in rj.attacks.ATTACKS.items()
        ]
        print(align(rows, len(rows[0]), options.markdown))


def known(threats: tuple[type, ...]) -> str:
    """The threats that an attack supports."""
    return "any" if rj.typing.Threat in threats else ", ".join(kind.__name__ for kind in threats)


def settings_of(name: str) -> str:
    """An attack and a line for each of its settings, under the first threat that it supports."""
    row = rj.attacks.ATTACKS.find(name)
    threat = next(t for t in rj.threats.THREATS.values() if isinstance(t, row.threats))
    settings = rj.spec.settings_of(rj.attacks.parse(name, threat))
    title = f"{name}, {row.paper}, threats: {known(row.threats)}"
    return "\n  ".join([title, *("=".join(pair) for pair in settings)])
