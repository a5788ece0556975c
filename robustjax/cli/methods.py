"""`robustjax methods`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from tyro.conf import Positional

from robustjax import spec
from robustjax.cli.train import AUGMENT, Options
from robustjax.config import format_number
from robustjax.report.tables import align
from robustjax.threats import Threats
from robustjax.training import CATALOGUE, cards_of


def methods(names: Positional[tuple[str, ...]] = (), markdown: bool = False) -> None:
    """List what `train` knows: name, paper, group, state carried and cost of a training step.

    FB is a forward and a backward pass over the batch, F a forward pass alone, at the defaults.
    Below are the cards of `train METHOD --card NAME`: the flags that make each of them of the
    card bot, the unified baseline, which every method has.

    Args:
      names: methods to list; none: all.
      markdown: print it as Markdown.

    Raises:
      ValueError: an unknown name.
    """
    if unknown := set(names) - set(CATALOGUE):
        raise ValueError(f"unknown method {min(unknown)!r}; known: {', '.join(CATALOGUE)}")
    listed = names or tuple(CATALOGUE)
    rows = [("method", "paper", "group", "state", "cost")]
    rows += [(n, e.paper, e.group, e.state, e.cost) for n in listed for e in [CATALOGUE[n]]]
    print(align(rows, len(rows[0]), markdown), end="\n\n")
    rows = [("method", "card", "what it changes of the card bot")]
    rows += [
        (n, c, " ".join(changes(n, c)) or "-") for n in listed for c in cards_of(n) if c != "bot"
    ]
    print(align(rows, len(rows[0]), markdown))


def changes(method: str, name: str) -> list[str]:
    """The words that make a card of the method's bot, as flags of `train`."""
    bot, other = (cards_of(method)[card] for card in ("bot", name))
    words = [*between(bot.method, other.method), *between(bot.recipe, other.recipe)]
    usual = {field.name: field.default for field in dataclasses.fields(Options)}
    for option in {**bot.options, **other.options}:
        old, new = (card.options.get(option, usual[option]) for card in (bot, other))
        words += [] if old == new else flag(option, new)
    return words


def between(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """The flags that make one config of another of its type."""
    for field in dataclasses.fields(new):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        if isinstance(after, Threats):
            yield from flag("eps", after.eps)
        elif dataclasses.is_dataclass(after) and names_of(after) is None:
            yield from between(before, after, f"{path}{field.name}.")
        else:
            yield from flag(path + field.name, after)


def flag(name: str, value: Any) -> list[str]:
    """The words that give a flag of `train` this value."""
    path, dot, last = name.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return [f"--{path}{dot}{last if value else 'no-' + last}"]
    if names := names_of(value):
        text = spec.write(value, names)
    else:
        text = format_number(value) if isinstance(value, float) else str(value)
    return [f"--{path}{dot}{last}", text]


def names_of(value: Any) -> spec.Names[Any] | None:
    """The names that a flag gives such a value by; None where each of its fields has a flag."""
    for names in (*spec.KINDS.values(), AUGMENT):
        if type(value) in map(type, names.values()):
            return names
    return None
